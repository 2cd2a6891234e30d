//go:build !linux

package relay

import (
	"net"
	"time"

	"polyport/internal/reactor"
)

// looped is what a tunnel on an event loop has besides; there are none on this system.
type looped struct{}

// pumped is what a flow on an event loop has besides.
type pumped struct{}

func (t *Tunnel) onLoop(*reactor.Loop)         {}
func (t *Tunnel) isLooped() bool               { return false }
func (t *Tunnel) startOnLoop()                 {}
func (t *Tunnel) stopFlows()                   {}
func (t *Tunnel) keepAlive(time.Duration)      {}
func (t *Tunnel) nextKeepAlive() time.Duration { return 0 }
func (t *Tunnel) hasReset(int) bool            { return false }
func (t *Tunnel) setTimer(time.Duration)       {}
func (t *Tunnel) stopTimer()                   {}
func (t *Tunnel) post(func())                  {}
func (t *Tunnel) later(func())                 {}
func (t *Tunnel) loopTime() time.Duration      { return 0 }

func isDead(net.Conn) bool                { return false }
func unsent(net.Conn) (n int, known bool) { return 0, false }
func unread(net.Conn) int                 { return 0 }
func (t *Tunnel) queues() (q queues)      { return q }
