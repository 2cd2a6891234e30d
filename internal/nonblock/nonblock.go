// Package nonblock sends and receives on sockets without ever waiting. On Linux
// a call does not tell the scheduler of a system call: it is over within
// microseconds, so to hand the thread's work to another and to fetch it back costs
// more than it could gain. It knows no protocol, no deadline and no poller.
package nonblock
