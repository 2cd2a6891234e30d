package certificate

import (
	"crypto"
	"crypto/x509"
	"crypto/x509/pkix"
	"testing"
	"time"
)

// Whatever the two files hold: a pair that is taken has a key that is its
// certificate's, and each name that it has is owned.
func FuzzPair(f *testing.F) {
	good, other := serverOf(f, nil, nil, "a.example"), serverOf(f, nil, edKey(f), "b.example")
	f.Add([]byte(good.pem()), []byte(good.keyPEM(f)))
	f.Add([]byte(good.pem()), []byte(other.keyPEM(f)))
	f.Add([]byte(other.pem()+good.pem()), []byte(other.keyPEM(f)))
	f.Add(good.cert.Raw, []byte("-----BEGIN PRIVATE KEY-----\n-----END PRIVATE KEY-----\n"))
	f.Add([]byte(good.keyPEM(f)), []byte(good.pem()))
	f.Fuzz(func(t *testing.T, cert, key []byte) {
		p := Pair{Name: "x", Certificate: "c", Key: "k"}
		c, err := parsePair(p, held{data: cert}, held{data: key}, time.Now())
		if (c == nil) != (err != nil) {
			t.Fatalf("parsePair = %v, %v", c, err)
		}
		if err != nil {
			return
		}
		m := newMaterial([]*pair{c}, nil, nil)
		public := c.cert.PrivateKey.(crypto.Signer).Public().(interface{ Equal(crypto.PublicKey) bool })
		if !public.Equal(c.leaf.PublicKey) {
			t.Error("the key is of another certificate")
		}
		for _, name := range m.names() {
			if !m.owns(name) {
				t.Errorf("%q is not owned", name)
			}
		}
	})
}

// A list that is taken is signed by the CA.
func FuzzCRL(f *testing.F) {
	ca, stranger := caOf(f, "ca", nil), caOf(f, "ca", nil)
	client := clientOf(f, ca, "alice")
	good := crlOf(f, ca, x509.RevocationList{}, client)
	f.Add(good)
	f.Add([]byte(crlPEM(good)))
	f.Add([]byte(crlPEM(good) + crlPEM(crlOf(f, stranger, x509.RevocationList{}))))
	f.Add(crlOf(f, ca, x509.RevocationList{ExtraExtensions: []pkix.Extension{{Id: oidDelta, Value: []byte{2, 1, 1}}}}))
	cas := []*x509.Certificate{ca.cert}
	f.Fuzz(func(t *testing.T, data []byte) {
		r, err := parseCRLs("crl", data, cas, time.Now())
		if (r == nil) != (err != nil) {
			t.Fatalf("parseCRLs = %v, %v", r, err)
		}
		if err != nil {
			return
		}
		for issuer := range r.lists {
			if issuer != string(ca.cert.RawSubject) {
				t.Errorf("a list of %x was taken", issuer)
			}
		}
		r.has(client.cert) // must not panic
	})
}
