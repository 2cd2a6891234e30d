package config

import (
	"net/netip"
	"time"
)

// DefaultAddress is where the gateway listens when nobody says otherwise: P-O-L-Y on a phone pad.
const DefaultAddress = "127.0.0.1:7659"

// DefaultListener is the name of the one listener that exists when the file has none.
const DefaultListener = "main"

// Default returns the configuration of a gateway that was given no file: it listens on
// DefaultAddress, serves every row of the protocol table, knows no users and
// has the default policy.
func Default() *File {
	return &File{
		Listen: defaultListeners(),
		Sniff:  Sniff{Timeout: seconds(5), SilentAfter: seconds(2)},
		Timeouts: Timeouts{
			Handshake: seconds(10),
			Connect:   seconds(10),
			Idle:      Duration(2*time.Hour + 4*time.Minute), // RFC 5382 REQ-5, written for NATs
			KeepAlive: seconds(75),
			Drain:     seconds(30),
		},
		Limits: Limits{
			Connections:          65536,
			ConnectionsPerClient: 8192,
			Unfinished:           16384,
			UnfinishedPerClient:  512,
			StreamsPerConnection: 256,
		},
		UDP: UDP{
			Filter:                FilterEndpoint,
			Idle:                  Duration(5 * time.Minute), // RFC 4787 REQ-5
			Associations:          16384,
			AssociationsPerClient: 512,
			Targets:               1024,
		},
		Auth: Auth{
			ClientCertificate: CertificateRequest,
			ClientIdentity:    IdentitySAN,
			Lockout: Lockout{
				Failures: 5,
				Window:   Duration(10 * time.Minute),
				Ban:      Duration(15 * time.Minute),
			},
		},
		TLS:          TLS{MinVersion: "1.2", ACME: ACME{Challenges: []string{ChallengeALPN, ChallengeHTTP}}},
		HTTP:         HTTP{Anonymity: AnonymityHideClient},
		Bind:         Bind{Timeout: Duration(time.Minute), PerClient: 4},
		Log:          Log{Level: "info", Access: AccessAuto, AccessTo: ToStderr, RedactQuery: true},
		DNS:          defaultDNS(),
		DefaultRules: true,
	}
}

func seconds(n int) Duration { return Duration(time.Duration(n) * time.Second) }

func defaultListeners() map[string]Listener {
	var l Listener
	l.setDefaults()
	return map[string]Listener{DefaultListener: l}
}

// setDefaults is what a [listen.NAME] table starts from.
func (l *Listener) setDefaults() {
	ap := netip.MustParseAddrPort(DefaultAddress)
	l.Address = []AddrRange{{Addr: ap.Addr(), Ports: PortRange{ap.Port(), ap.Port()}}}
	l.Protocols = []string{"*"}
	l.UDP = true
}
