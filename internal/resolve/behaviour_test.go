package resolve

import (
	"encoding/binary"

	"github.com/miekg/dns"
)

// behaviours are servers good and bad, with what a client gets from them.
var behaviours = []struct {
	name string
	h    func(w dns.ResponseWriter, q *dns.Msg)
	want []string // sorted addresses; nil: an error
	kind error
	says string // part of the error
}{
	{name: "both families", h: func(w dns.ResponseWriter, q *dns.Msg) {
		reply(w, q, dns.RcodeSuccess, "% 60 A 192.0.2.1", "% 60 AAAA 2001:db8::1")
	}, want: []string{"192.0.2.1", "2001:db8::1"}},
	{name: "IPv4 only", h: func(w dns.ResponseWriter, q *dns.Msg) {
		reply(w, q, dns.RcodeSuccess, "% 60 A 192.0.2.1")
	}, want: []string{"192.0.2.1"}},
	{name: "IPv6 fails", h: func(w dns.ResponseWriter, q *dns.Msg) {
		if q.Question[0].Qtype == dns.TypeAAAA {
			reply(w, q, dns.RcodeServerFailure)
			return
		}
		reply(w, q, dns.RcodeSuccess, "% 60 A 192.0.2.1")
	}, want: []string{"192.0.2.1"}},
	{name: "IPv6 hangs", h: func(w dns.ResponseWriter, q *dns.Msg) {
		if q.Question[0].Qtype != dns.TypeAAAA {
			reply(w, q, dns.RcodeSuccess, "% 60 A 192.0.2.1")
		}
	}, want: []string{"192.0.2.1"}},
	{name: "alias", h: func(w dns.ResponseWriter, q *dns.Msg) {
		reply(w, q, dns.RcodeSuccess, "% 60 CNAME B.example.", "b.example. 60 CNAME c.example.", "C.example. 60 A 192.0.2.3")
	}, want: []string{"192.0.2.3"}},
	{name: "alias without addresses", h: func(w dns.ResponseWriter, q *dns.Msg) {
		reply(w, q, dns.RcodeSuccess, "% 60 CNAME b.example.")
	}, kind: ErrNotFound},
	{name: "aliases in a circle", h: func(w dns.ResponseWriter, q *dns.Msg) {
		reply(w, q, dns.RcodeSuccess, "% 60 CNAME b.example.", "b.example. 60 CNAME %")
	}, kind: ErrServer, says: "circle"},
	{name: "a lie: addresses of another name", h: func(w dns.ResponseWriter, q *dns.Msg) {
		reply(w, q, dns.RcodeSuccess, "other.example. 60 A 192.0.2.66")
	}, kind: ErrNotFound},
	{name: "a lie beside the truth", h: func(w dns.ResponseWriter, q *dns.Msg) {
		reply(w, q, dns.RcodeSuccess, "other.example. 60 A 192.0.2.66", "% 60 A 192.0.2.1")
	}, want: []string{"192.0.2.1"}},
	{name: "IPv4 in IPv6", h: func(w dns.ResponseWriter, q *dns.Msg) {
		reply(w, q, dns.RcodeSuccess, "% 60 AAAA ::ffff:10.0.0.1")
	}, want: []string{"10.0.0.1"}},
	{name: "nothing", h: func(w dns.ResponseWriter, q *dns.Msg) {
		reply(w, q, dns.RcodeSuccess)
	}, kind: ErrNotFound},
	{name: "a referral", h: func(w dns.ResponseWriter, q *dns.Msg) {
		m := message(q, dns.RcodeSuccess)
		m.RecursionAvailable = false
		m.Ns = []dns.RR{&dns.NS{Hdr: dns.RR_Header{Name: ".", Rrtype: dns.TypeNS, Class: dns.ClassINET, Ttl: 60}, Ns: "a.root-servers.net."}}
		w.WriteMsg(m)
	}, kind: ErrServer, says: "refers to other servers"},
	{name: "NXDOMAIN", h: func(w dns.ResponseWriter, q *dns.Msg) {
		reply(w, q, dns.RcodeNameError)
	}, kind: ErrNotFound, says: "NXDOMAIN"},
	{name: "SERVFAIL", h: func(w dns.ResponseWriter, q *dns.Msg) {
		reply(w, q, dns.RcodeServerFailure)
	}, kind: ErrServer, says: "SERVFAIL"},
	{name: "REFUSED", h: func(w dns.ResponseWriter, q *dns.Msg) {
		reply(w, q, dns.RcodeRefused)
	}, kind: ErrServer, says: "REFUSED"},
	{name: "silence", h: func(dns.ResponseWriter, *dns.Msg) {}, kind: ErrTimeout, says: "silent"},
	{name: "too large for UDP", h: func(w dns.ResponseWriter, q *dns.Msg) {
		if !overTCPOnly(w) {
			m := message(q, dns.RcodeSuccess)
			m.Truncated = true
			w.WriteMsg(m)
			return
		}
		reply(w, q, dns.RcodeSuccess, "% 60 A 192.0.2.1")
	}, want: []string{"192.0.2.1"}},
	{name: "truncated without a question", h: func(w dns.ResponseWriter, q *dns.Msg) {
		if !overTCPOnly(w) {
			m := message(q, dns.RcodeSuccess)
			m.Truncated, m.Question = true, nil
			w.WriteMsg(m)
			return
		}
		reply(w, q, dns.RcodeSuccess, "% 60 A 192.0.2.1")
	}, want: []string{"192.0.2.1"}},
	{name: "truncated, and TCP is closed", h: func(w dns.ResponseWriter, q *dns.Msg) {
		if overTCPOnly(w) {
			w.Close()
			return
		}
		m := message(q, dns.RcodeSuccess)
		m.Truncated = true
		w.WriteMsg(m)
	}, kind: ErrServer, says: "read the length"},
	{name: "hundreds of addresses", h: func(w dns.ResponseWriter, q *dns.Msg) {
		m := message(q, dns.RcodeSuccess, many(250)...)
		if !overTCPOnly(w) {
			m.Answer, m.Truncated = nil, true
		}
		w.WriteMsg(m)
	}, want: []string{
		"192.0.2.0", "192.0.2.1", "192.0.2.2", "192.0.2.3", "192.0.2.4", "192.0.2.5", "192.0.2.6", "192.0.2.7",
		"2001:db8::", "2001:db8::1", "2001:db8::2", "2001:db8::3", "2001:db8::4", "2001:db8::5", "2001:db8::6", "2001:db8::7",
	}},
	{name: "forged answers first", h: func(w dns.ResponseWriter, q *dns.Msg) {
		forged := message(q, dns.RcodeSuccess, "% 60 A 192.0.2.66", "% 60 AAAA 2001:db8::66")
		forged.Id++ // the ID was guessed wrongly
		w.WriteMsg(forged)
		forged = message(q, dns.RcodeSuccess, "% 60 A 192.0.2.66", "% 60 AAAA 2001:db8::66")
		forged.Question[0].Name = "other.example." // the question was
		w.WriteMsg(forged)
		query := q.Copy() // not even an answer
		w.WriteMsg(query)
		w.Write([]byte{1})
		reply(w, q, dns.RcodeSuccess, "% 60 A 192.0.2.1")
	}, want: []string{"192.0.2.1"}},
	{name: "forged answers only", h: func(w dns.ResponseWriter, q *dns.Msg) {
		forged := message(q, dns.RcodeSuccess, "% 60 A 192.0.2.66")
		forged.Id++
		w.WriteMsg(forged)
	}, kind: ErrTimeout, says: "silent"},
	{name: "another question over TCP", h: func(w dns.ResponseWriter, q *dns.Msg) {
		m := message(q, dns.RcodeSuccess)
		m.Truncated = true
		if overTCPOnly(w) {
			m.Question[0].Name = "other.example."
		}
		w.WriteMsg(m)
	}, kind: ErrServer, says: "another question"},
	{name: "garbage", h: func(w dns.ResponseWriter, q *dns.Msg) {
		m := message(q, dns.RcodeSuccess, "% 60 A 192.0.2.1", "% 60 AAAA 2001:db8::1")
		wire, err := m.Pack()
		if err != nil {
			panic(err)
		}
		binary.BigEndian.PutUint16(wire[6:], 9) // claims 9 records
		w.Write(wire[:len(wire)-5])
	}, kind: ErrServer, says: "unreadable"},
	{name: "a server that does not know EDNS", h: func(w dns.ResponseWriter, q *dns.Msg) {
		if q.IsEdns0() != nil {
			m := new(dns.Msg).SetRcodeFormatError(q)
			m.Question = nil
			w.WriteMsg(m)
			return
		}
		reply(w, q, dns.RcodeSuccess, "% 60 A 192.0.2.1")
	}, want: []string{"192.0.2.1"}},
	{name: "FORMERR whatever is asked", h: func(w dns.ResponseWriter, q *dns.Msg) {
		reply(w, q, dns.RcodeFormatError)
	}, kind: ErrServer, says: "FORMERR"},
}
