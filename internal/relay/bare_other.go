//go:build !linux

package relay

import (
	"net"
	"syscall"
	"time"
)

// bare says that no connection can be spliced on this system.
func bare([2]net.Conn) (raw [2]syscall.RawConn) { return raw }

// carry is never called, since bare finds nothing.
func (t *Tunnel) carry(d int) { t.copy(d) }

func isDead(syscall.RawConn) bool         { return false }
func unsent(net.Conn) (n int, known bool) { return 0, false }
func unread(net.Conn) int                 { return 0 }
func (t *Tunnel) queues() (q queues)      { return q }
func (t *Tunnel) parkFlow(int) bool       { return false }
func (t *Tunnel) parkWhole()              {}

// parking is where quiet flows are watched: nowhere.
type parking struct{}

func (parking) remove(*Tunnel, int)             {}
func (parking) schedule(*Tunnel, time.Duration) {}
func (parking) unschedule(*Tunnel)              {}
