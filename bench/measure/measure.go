// Package measure is what a benchmark has found: measurements, the machine
// they were made on, and the lines of JSON that keep both.
package measure

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"slices"
)

// Direct is the name of the program that is none: the client speaks to the origin.
const Direct = "direct"

// Workloads, in the order in which they are run and shown.
const (
	Idle       = "idle"
	Bulk       = "bulk"
	Verify     = "verify"
	ConnRate   = "connrate"
	PingPong   = "pingpong"
	Alone      = "alone"
	HTTP       = "http"
	Handshakes = "handshakes"
	TLSBulk    = "tlsbulk"
	Held       = "held"
	BusyIdle   = "busyidle"
	UDP        = "udp"
	UDPIdle    = "udpidle"
	Chain      = "chain"
	ChainBulk  = "chainbulk"
)

// Workloads are all of them.
var Workloads = []string{Idle, Bulk, Verify, ConnRate, PingPong, Alone, HTTP, Handshakes, TLSBulk, Held, BusyIdle, UDP, UDPIdle, Chain, ChainBulk}

// Protocols that make a tunnel, as polyport's own rows are called.
var Protocols = []string{"socks5", "socks4", "socks4a", "connect", "tls"}

// Protocols of the workloads with TLS that ends at the proxy.
const (
	Raw        = "raw"         // what the client sends goes to the origin as it is, without TLS
	RawTLS     = "raw-tls"     // the same, in TLS
	ConnectTLS = "connect-tls" // HTTP CONNECT in TLS
)

// Socks5UDP is the protocol of the workloads with datagrams: SOCKS5 UDP ASSOCIATE (RFC 1928 section 7).
const Socks5UDP = "socks5-udp"

// Variants of UDPIdle.
const (
	Silent   = "silent"   // no datagram has been sent yet
	Answered = "answered" // one was, and its answer has come: the client's port is known
)

// Variants of Handshakes.
const (
	Plain   = "plain"   // no handshake: what the connection costs without TLS
	Full    = "full"    // with a signature
	Resumed = "resumed" // with a ticket

	// Nothing inside: what the handshake itself costs.
	FullAlone    = "full alone"
	ResumedAlone = "resumed alone"
)

// Metrics. Not every workload has all of them.
const (
	GBps     = "GB_per_s"       // 10^9 bytes a second
	CPUPerGB = "cpu_s_per_GB"   // user and system time of the program
	PerSec   = "per_s"          // operations a second
	P50      = "p50_us"         // of one operation
	P99      = "p99_us"         //
	CPU      = "cpu_us"         // of the program, for one operation
	Other    = "other_cores"    // what others on the machine used meanwhile
	PSS      = "pss_B"          // for one tunnel, as are the next three
	RSS      = "rss_B"          //
	Kernel   = "kernel_B"       // of the whole machine, so of both tunnel ends
	FDs      = "fds"            // descriptors
	Threads  = "threads"        // of the program, all tunnels together
	Procs    = "procs"          //
	WakeP50  = "wake_p50_us"    // an echo through a tunnel that has rested
	WakeP99  = "wake_p99_us"    //
	IdleCPU  = "idle_cores"     // with all tunnels at rest
	Opened   = "opened"         // tunnels, connections
	Kept     = "kept"           // good clients' rate with held connections, of that without
	StillIn  = "still_held"     // held connections that were open at the end
	OwnPerGB = "own_s_per_GB"   // CPUPerGB of the same process without idle tunnels
	Bytes    = "bytes_verified" //
	Offered  = "offered_per_s"  // datagrams that were sent
	Lost     = "lost_share"     // of the datagrams that were sent, 0 to 1
)

// Measurement is one line of the file.
type Measurement struct {
	Time    string             `json:"time"` // RFC 3339
	Name    string             `json:"name"` // of the program, or Direct
	Proto   string             `json:"proto"`
	Work    string             `json:"work"`
	Variant string             `json:"variant,omitempty"` // such as down8
	Round   int                `json:"round"`
	Metrics map[string]float64 `json:"metrics"`
	// Errors counts failed operations, and lost or changed bytes.
	Errors   int    `json:"errors"`
	FirstErr string `json:"first_err,omitempty"`
}

// Run describes a run: the first line of its file.
type Run struct {
	Date     string    `json:"date"` // year, month, day
	Machine  Machine   `json:"machine"`
	Programs []Program `json:"programs"`
	Rounds   int       `json:"rounds"`
	Window   string    `json:"window"`            // of one measurement
	Flags    string    `json:"flags,omitempty"`   // that differ from the defaults
	Limits   []string  `json:"limits,omitempty"`  // what could not be done as it should
	Account  string    `json:"account,omitempty"` // of the proxies beside idle tunnels
}

// Machine says where a run was made, without naming the host.
type Machine struct {
	CPU    string `json:"cpu"`
	Cores  int    `json:"cores"`
	Memory int64  `json:"memory"` // bytes
	System string `json:"system"`
	Kernel string `json:"kernel"`
	Go     string `json:"go"`
}

// Program is one that was measured.
type Program struct {
	Name    string `json:"name"`
	Version string `json:"version"`
	Note    string `json:"note,omitempty"`
}

// line is one line of the file: a run or a measurement.
type line struct {
	Run *Run `json:"run,omitempty"`
	*Measurement
}

// WriteRun writes the line that a run's measurements follow.
func WriteRun(w io.Writer, r Run) error { return json.NewEncoder(w).Encode(line{Run: &r}) }

// Write writes one measurement.
func Write(w io.Writer, m Measurement) error { return json.NewEncoder(w).Encode(m) }

// Read reads one file's lines. The run is the zero Run if there is no line for it.
func Read(r io.Reader) (run Run, all []Measurement, err error) {
	s := bufio.NewScanner(r)
	s.Buffer(nil, 1<<20)
	for n := 1; s.Scan(); n++ {
		var l line
		if err := json.Unmarshal(s.Bytes(), &l); err != nil {
			return run, all, fmt.Errorf("line %d is not a measurement: %w", n, err)
		}
		switch {
		case l.Run != nil:
			run = *l.Run
		case l.Measurement != nil:
			all = append(all, *l.Measurement)
		}
	}
	return run, all, s.Err()
}

// ReadFiles reads files of one machine; the last run's description holds.
// Rounds of later files are counted on, since ratios are made within a round.
func ReadFiles(paths []string) (run Run, all []Measurement, err error) {
	last := 0
	for _, path := range paths {
		f, err := os.Open(path)
		if err != nil {
			return run, all, err
		}
		r, ms, err := Read(f)
		f.Close()
		if err != nil {
			return run, all, fmt.Errorf("%s: %w", path, err)
		}
		base := last
		for _, m := range ms {
			m.Round += base
			last = max(last, m.Round)
			all = append(all, m)
		}
		run = r
	}
	run.Rounds = last
	return run, all, nil
}

// Median of v, 0 for none. It leaves v as it is.
func Median(v []float64) float64 {
	if len(v) == 0 {
		return 0
	}
	s := slices.Sorted(slices.Values(v))
	mid := len(s) / 2
	if len(s)%2 == 1 {
		return s[mid]
	}
	return (s[mid-1] + s[mid]) / 2
}

// Mean of v, 0 for none.
func Mean(v []float64) float64 {
	if len(v) == 0 {
		return 0
	}
	sum := 0.0
	for _, x := range v {
		sum += x
	}
	return sum / float64(len(v))
}

// Percentile p, between 0 and 1, of sorted values; 0 for none.
func Percentile(sorted []float64, p float64) float64 {
	if len(sorted) == 0 {
		return 0
	}
	return sorted[int(p*float64(len(sorted)-1))]
}
