//go:build !unix

package tlsconn

import (
	"net"
	"os"
)

// receive finds nothing here: a connection that was closed while idle is found out by using it.
func receive(*net.TCPConn, []byte) (int, error) { return 0, os.ErrDeadlineExceeded }
