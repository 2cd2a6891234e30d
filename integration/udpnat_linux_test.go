package integration

import (
	"fmt"
	"os/exec"
	"strings"
	"testing"
)

// The network of these tests: this process is outside, and so is one side of a router, behind which is the inside.
const (
	outsideNAT = "198.51.100.1"
	natAddress = "198.51.100.2"
	insideNAT  = "10.9.0.2"
	natPort    = "7659"
	natRules   = `
table ip nat {
	chain prerouting {
		type nat hook prerouting priority -100
		%s
	}
	chain postrouting {
		type nat hook postrouting priority 100
		oifname "eth0" masquerade %s
	}
}
table ip filter {
	chain forward {
		type filter hook forward priority 0; policy drop;
		ct state established,related accept
		ct status dnat accept
		%s
	}
}
`
)

// inNamespace makes a command that runs in one of the other namespaces, "router" or "inside".
func inNamespace(t *testing.T, namespace string, words ...string) *exec.Cmd {
	t.Helper()
	return command(t, "ip", append([]string{"netns", "exec", namespace}, words...)...)
}

// build makes the network. The router lets out what forward admits and nothing else, with another source port
// if ports is "fully-random"; what comes to it goes where nat says.
func build(t *testing.T, ports, nat, forward string) {
	t.Helper()
	need(t, "nft")
	cover(t, "/run", t.TempDir()) // where ip keeps its namespaces
	for _, line := range []string{
		"netns add router", "netns add inside",
		"link add out type veth peer name eth0 netns router", "addr add " + outsideNAT + "/24 dev out", "link set out up",
		"-n router addr add " + natAddress + "/24 dev eth0", "-n router link set eth0 up",
		"-n router link add in type veth peer name eth0 netns inside", "-n router addr add 10.9.0.1/24 dev in", "-n router link set in up",
		"-n inside addr add " + insideNAT + "/24 dev eth0", "-n inside link set eth0 up", "-n inside link set lo up", "-n inside route add default via 10.9.0.1",
	} {
		ip(t, strings.Fields(line)...)
	}
	t.Cleanup(func() {
		ip(t, "netns", "delete", "inside")
		ip(t, "netns", "delete", "router")
		if err := unbind("/run/netns"); err != nil { // which ip has mounted on itself
			t.Errorf("unmount /run/netns: %v", err)
		}
	})
	mustSay(t, finish(t, inNamespace(t, "router", "sh", "-c", "echo 1 >/proc/sys/net/ipv4/ip_forward")), 0)
	mustSay(t, finish(t, withInput(inNamespace(t, "router", "nft", "-f", "-"), fmt.Sprintf(natRules, nat, ports, forward))), 0)
}

// onePort is all that the clients' firewall lets through.
const onePort = "tcp dport " + natPort + " accept\n\t\tudp dport " + natPort + " accept"

// natGateway is the configuration of one outside that knows two users.
const natGateway = "[listen.main]\naddress = [\"" + outsideNAT + ":" + natPort + "\"]\n[auth]\nhtpasswd = \"users.htpasswd\"\n" + allowLoopback

// TestUDPBehindNAT has one port of the gateway open, for TCP and UDP, to clients that share an address.
func TestUDPBehindNAT(t *testing.T) {
	if !apart(t) {
		return
	}
	build(t, "", "", onePort)
	g, port := twoUsers(t, natGateway), fmt.Sprint(echoPort(t))
	client := func(login string) *pySocks { return newPySocks(t, g.at(), login, "ip", "netns", "exec", "inside") }
	mark := g.mark()
	alice, early := client("alice:alice's own"), client("bob:bob's own")
	alice.bind(g.at())
	early.tell("bind", 0) // whose are the datagrams that come next?
	if got := early.line(); !strings.Contains(got, "0x01") {
		t.Errorf("while alice has sent nothing bob is told %q, want REP 01", got)
	}
	early.end()
	second := client("alice:alice's own")
	second.bind(g.at())
	alice.echoes("127.0.0.1", port, "first-of-alice", "127.0.0.1")
	second.echoes("127.0.0.1", port, "second-of-alice", "127.0.0.1")
	bob := client("bob:bob's own")
	bob.bind(g.at())
	for range 3 {
		bob.echoes("127.0.0.1", port, "bob's", "127.0.0.1")
		alice.echoes("127.0.0.1", port, "alice's", "127.0.0.1")
	}
	second.end()
	check(t, g.recordSince(mark, "method=UDP", "identity=alice"), map[string]any{"bytes_from_client": 15.0, "bytes_from_target": 15.0, "reason": ""})
	mark = g.mark()
	alice.end()
	bob.end()
	for identity, bytes := range map[string]float64{"alice": 14 + 3*7, "bob": 3 * 5} {
		l := g.recordSince(mark, "method=UDP", "identity="+identity)
		check(t, l, map[string]any{"bytes_from_client": bytes, "bytes_from_target": bytes, "reason": "", "datagrams_dropped": 0.0})
		if !strings.HasPrefix(l.str("client"), natAddress+":") {
			t.Errorf("the client is %v, want it behind %s", l.str("client"), natAddress)
		}
	}
}

// TestUDPBehindNATThatChangesPorts has clients that tell their own port, which the gateway never sees.
func TestUDPBehindNATThatChangesPorts(t *testing.T) {
	if !apart(t) {
		return
	}
	build(t, "fully-random", "", onePort)
	g, server, port := twoUsers(t, natGateway), dnsmasq(t), fmt.Sprint(echoPort(t))
	host, dnsPort, _ := strings.Cut(server, ":")
	drill := viaDante(t, g.at(), "alice:alice's own", "drill", "-p", dnsPort, "known.example", "@"+host)
	drill.Args = append([]string{"ip", "netns", "exec", "inside"}, drill.Args...)
	drill.Path = need(t, "ip")
	if got := finish(t, drill); got.code != 0 || !strings.Contains(got.stdout, "192.0.2.7") {
		t.Errorf("drill ended with %d and printed %q, %q", got.code, got.stdout, got.stderr)
	}
	check(t, g.record("method=UDP"), map[string]any{"identity": "alice", "target": server, "datagrams_from_target": 1.0, "reason": ""})
	p := newPySocks(t, g.at(), "bob:bob's own", "ip", "netns", "exec", "inside")
	p.bind(g.at())
	p.echoes("127.0.0.1", port, "from-another-port", "127.0.0.1")
	p.end()
	check(t, g.record("method=UDP", "identity=bob"), map[string]any{"bytes_from_client": 17.0, "bytes_from_target": 17.0, "reason": ""})
}

// TestUDPPortsBehindNAT has ports to tell the users behind one address apart by.
func TestUDPPortsBehindNAT(t *testing.T) {
	if !apart(t) {
		return
	}
	build(t, "", "", onePort+"\n\t\tudp dport 40000-40001 accept")
	g, port := twoUsers(t, natGateway+"[udp]\nports = \"40000-40001\"\n"), fmt.Sprint(echoPort(t))
	alice := newPySocks(t, g.at(), "alice:alice's own", "ip", "netns", "exec", "inside")
	bob := newPySocks(t, g.at(), "bob:bob's own", "ip", "netns", "exec", "inside")
	relays := map[string]bool{}
	for _, p := range []*pySocks{alice, bob} {
		p.tell("bind", 0)
		relays[p.line()] = true
	}
	bob.echoes("127.0.0.1", port, "bob's", "127.0.0.1")
	alice.echoes("127.0.0.1", port, "alice's", "127.0.0.1")
	bob.echoes("127.0.0.1", port, "again", "127.0.0.1")
	if len(relays) != 2 {
		t.Errorf("both are told %v, want a port for each", relays)
	}
	alice.end()
	bob.end()
	for identity, bytes := range map[string]float64{"alice": 7, "bob": 10} {
		check(t, g.record("method=UDP", "identity="+identity), map[string]any{"bytes_from_client": bytes, "bytes_from_target": bytes, "reason": ""})
	}
}

// TestUDPBehindDNAT has the gateway in a container, as Docker runs it, whose address its clients cannot reach.
func TestUDPBehindDNAT(t *testing.T) {
	if !apart(t) {
		return
	}
	build(t, "", "iifname \"eth0\" tcp dport "+natPort+" dnat to "+insideNAT+"\n\t\tiifname \"eth0\" udp dport "+natPort+" dnat to "+insideNAT, "iifname \"in\" accept")
	target := udpServer(t, outsideNAT, udpEcho)
	config := "[listen.main]\naddress = [\"0.0.0.0:" + natPort + "\"]\n[[rule]]\naction = \"allow\"\nclient = [\"" + outsideNAT + "\"]\ntarget = [\"" + outsideNAT + "\"]\n"
	for advertise, want := range map[string]string{"": insideNAT, natAddress: natAddress} {
		run := config
		if advertise != "" {
			run += "[udp]\nadvertise = \"" + advertise + "\"\n"
		}
		g := prepare(t, run)
		g.cmd = inNamespace(t, "inside", g.cmd.Args...)
		g.run()
		g.waitListening(1)
		c := call(t, dialFrom(t, outsideNAT, natAddress+":"+natPort), "")
		if got := c.relay.String(); got != want+":"+natPort {
			t.Errorf("with advertise = %q BND is %s, want %s:%s", advertise, got, want, natPort)
		}
		if advertise == natAddress {
			c.mustEcho(target, "by what is advertised")
		}
		c.record(g, map[string]any{"reason": ""})
		p := newPySocks(t, natAddress+":"+natPort, "") // which goes by the address that it knows
		p.bind(natAddress + ":" + natPort)
		host, port, _ := strings.Cut(target, ":")
		p.echoes(host, port, "anyhow", host)
		p.end()
		check(t, g.record("method=UDP", "bytes_from_client=6"), map[string]any{"target": target, "datagrams_from_target": 1.0, "reason": ""})
		g.stop()
	}
}
