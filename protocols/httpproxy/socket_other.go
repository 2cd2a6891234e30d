//go:build !unix

package httpproxy

import "errors"

// socket is nothing where the system does not let us read and write it ourselves.
type socket struct{}

func (s *stream) openSocket() *socket { return nil }

func (k *socket) read([]byte) (int, error) { return 0, errors.ErrUnsupported }

func (k *socket) write([]byte) (int, error) { return 0, errors.ErrUnsupported }

// ReadLate implements http1.LateReader.
func (s *stream) ReadLate(func() []byte, func([]byte)) ([]byte, int, error) {
	return nil, 0, errors.ErrUnsupported
}
