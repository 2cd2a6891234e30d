package resolve

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"
)

func TestReadAnswerTakesTheShortestLife(t *testing.T) {
	q := new(dns.Msg).SetQuestion("a.example.", dns.TypeA)
	tests := []struct {
		name    string
		records []string
		want    time.Duration
	}{
		{"of the addresses", []string{"% 60 A 192.0.2.1", "% 30 A 192.0.2.2"}, 30 * time.Second},
		{"of the alias", []string{"% 10 CNAME b.example.", "b.example. 60 A 192.0.2.1"}, 10 * time.Second},
		{"none", []string{"% 0 A 192.0.2.1"}, 0},
		{"not of what is beside the answer", []string{"% 60 A 192.0.2.1", "other.example. 1 A 192.0.2.2"}, time.Minute},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			a, err := readAnswer(message(q, dns.RcodeSuccess, tt.records...), "a.example", dns.TypeA)
			if err != nil || a.ttl != tt.want {
				t.Errorf("readAnswer(%q) lives %v, %v, want %v", tt.records, a.ttl, err, tt.want)
			}
		})
	}
}

func TestReadAnswerFollowsAliases(t *testing.T) {
	q := new(dns.Msg).SetQuestion("n0.example.", dns.TypeA)
	chain := func(n int) (records []string) {
		name := func(i int) string { return "n" + strings.Repeat("1", i) + "0.example." }
		for i := range n {
			records = append(records, name(i)+" 60 CNAME "+name(i+1))
		}
		return append(records, name(n)+" 60 A 192.0.2.1")
	}
	if _, err := readAnswer(message(q, dns.RcodeSuccess, chain(maxAliases)...), "n0.example", dns.TypeA); err != nil {
		t.Errorf("a chain of %d aliases: %v", maxAliases, err)
	}
	if _, err := readAnswer(message(q, dns.RcodeSuccess, chain(maxAliases+1)...), "n0.example", dns.TypeA); err == nil {
		t.Errorf("a chain of %d aliases was followed", maxAliases+1)
	}
}

func TestReadAnswerUnknownRcode(t *testing.T) {
	q := new(dns.Msg).SetQuestion("a.example.", dns.TypeA)
	_, err := readAnswer(message(q, 14), "a.example", dns.TypeA)
	if err == nil || !strings.Contains(err.Error(), "RCODE 14") {
		t.Errorf("readAnswer of RCODE 14 = %v", err)
	}
}

// FuzzReadAnswer: whatever a server sends, there are addresses or an error, only
// of the type asked for, and a life that is not negative.
func FuzzReadAnswer(f *testing.F) {
	q := new(dns.Msg).SetQuestion("a.example.", dns.TypeA)
	for _, records := range [][]string{
		{"% 60 A 192.0.2.1"}, {"% 60 CNAME b.example.", "b.example. 60 A 192.0.2.1"}, {"% 60 CNAME %"}, {},
	} {
		wire, err := message(q, dns.RcodeSuccess, records...).Pack()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(wire)
	}
	f.Fuzz(func(t *testing.T, wire []byte) {
		m := new(dns.Msg)
		if m.Unpack(wire) != nil && !m.Truncated {
			return
		}
		answers(m, q)
		a, err := readAnswer(m, "a.example", dns.TypeA)
		if (err == nil) != (len(a.addrs) > 0) {
			t.Errorf("readAnswer = %v, %v", a, err)
		}
		if err != nil {
			var e *Error
			if errors.As(err, &e) && e.Kind != ErrNotFound {
				t.Errorf("readAnswer fails with %v", err)
			}
			return
		}
		for _, addr := range a.addrs {
			if !addr.Is4() || a.ttl < 0 {
				t.Errorf("readAnswer of type A = %v", a)
			}
		}
	})
}
