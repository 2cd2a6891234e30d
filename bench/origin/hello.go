package origin

import (
	"crypto/tls"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"time"

	"polyport/bench/certificate"
)

// recordHandshake is the content type of a TLS record (RFC 8446 section 5.1).
const recordHandshake = 0x16

// helloTimeout bounds a handshake in memory.
const helloTimeout = 5 * time.Second

// ClientHello is the record that crypto/tls sends first for name.
func ClientHello(name string) ([]byte, error) {
	return firstRecord(nil, func(c net.Conn) error {
		return tls.Client(c, &tls.Config{ServerName: name, InsecureSkipVerify: true}).Handshake()
	})
}

// serverHello is the record that crypto/tls answers with.
func serverHello() ([]byte, error) {
	cert, err := certificate.New("bench.test")
	if err != nil {
		return nil, err
	}
	hello, err := ClientHello("bench.test")
	if err != nil {
		return nil, err
	}
	config := &tls.Config{Certificates: []tls.Certificate{cert}}
	return firstRecord(hello, func(c net.Conn) error { return tls.Server(c, config).Handshake() })
}

// firstRecord runs one end of a handshake in memory, sends it say, takes the
// record that it sends, and breaks the handshake off.
func firstRecord(say []byte, end func(net.Conn) error) ([]byte, error) {
	a, b := net.Pipe()
	done := make(chan struct{})
	go func() {
		defer close(done)
		end(a)
	}()
	defer func() {
		b.Close()
		<-done
		a.Close()
	}()
	b.SetDeadline(time.Now().Add(helloTimeout))
	// A pipe waits for a reader even with nothing to write.
	if len(say) > 0 {
		if _, err := b.Write(say); err != nil {
			return nil, fmt.Errorf("TLS handshake in memory: %w", err)
		}
	}
	record := make([]byte, 5)
	if _, err := io.ReadFull(b, record); err != nil {
		return nil, fmt.Errorf("TLS handshake in memory: %w", err)
	}
	record = append(record, make([]byte, binary.BigEndian.Uint16(record[3:]))...)
	_, err := io.ReadFull(b, record[5:])
	return record, err
}
