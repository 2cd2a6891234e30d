package certificate

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"path/filepath"
	"testing"
)

func TestFilesHoldTheCertificate(t *testing.T) {
	c, err := New("proxy.test")
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(c.Certificate[0])
	if err != nil {
		t.Fatal(err)
	}
	if err := leaf.VerifyHostname("proxy.test"); err != nil {
		t.Error(err)
	}
	if leaf.PublicKeyAlgorithm != x509.ECDSA || leaf.CheckSignatureFrom(leaf) == nil {
		t.Errorf("%v, and it may sign others: want ECDSA, and no authority", leaf.PublicKeyAlgorithm)
	}
	dir := t.TempDir()
	if err := Write(dir, c); err != nil {
		t.Fatal(err)
	}
	for _, files := range [][2]string{{CertFile, KeyFile}, {ChainFile, ChainFile}} {
		got, err := tls.LoadX509KeyPair(filepath.Join(dir, files[0]), filepath.Join(dir, files[1]))
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got.Certificate[0], c.Certificate[0]) {
			t.Errorf("%v hold another certificate", files)
		}
	}
}
