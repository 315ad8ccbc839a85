package standin

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"time"
)

// An authority is the certificate authority of one Set. Its key lives in memory only.
type authority struct {
	pem  []byte
	leaf tls.Certificate
}

// CAPEM is the certificate, in PEM, that signs the one of StartTLS. It is made at the first call.
func (s *Set) CAPEM() ([]byte, error) {
	a, err := s.authority()
	if err != nil {
		return nil, err
	}
	return a.pem, nil
}

func (s *Set) authority() (*authority, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ca == nil {
		a, err := newAuthority(append(append([]string{"localhost"}, s.usual...), s.opt.Hosts...))
		if err != nil {
			return nil, fmt.Errorf("making the stand-ins' certificate: %w", err)
		}
		s.ca = a
	}
	return s.ca, nil
}

func (s *Set) withTLS(l net.Listener) (net.Listener, error) {
	a, err := s.authority()
	if err != nil {
		_ = l.Close()
		return nil, err
	}
	return tls.NewListener(l, &tls.Config{
		Certificates: []tls.Certificate{a.leaf},
		MinVersion:   tls.VersionTLS12,
		NextProtos:   []string{"http/1.1"}, // header names have no case in HTTP/2
	}), nil
}

func newAuthority(names []string) (*authority, error) {
	from := time.Now().Add(-time.Hour)
	to := from.AddDate(1, 0, 0)
	caKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	ca := &x509.Certificate{
		SerialNumber:          big.NewInt(1),
		Subject:               pkix.Name{CommonName: "Keyward stand-ins"},
		NotBefore:             from,
		NotAfter:              to,
		KeyUsage:              x509.KeyUsageCertSign,
		BasicConstraintsValid: true,
		IsCA:                  true,
	}
	caDER, err := x509.CreateCertificate(rand.Reader, ca, ca, caKey.Public(), caKey)
	if err != nil {
		return nil, err
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	leaf := &x509.Certificate{
		SerialNumber: big.NewInt(2),
		Subject:      pkix.Name{CommonName: "stand-in"},
		NotBefore:    from,
		NotAfter:     to,
		KeyUsage:     x509.KeyUsageDigitalSignature,
		ExtKeyUsage:  []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		DNSNames:     names,
		IPAddresses:  []net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback},
	}
	leafDER, err := x509.CreateCertificate(rand.Reader, leaf, ca, key.Public(), caKey)
	if err != nil {
		return nil, err
	}
	return &authority{
		pem:  pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: caDER}),
		leaf: tls.Certificate{Certificate: [][]byte{leafDER, caDER}, PrivateKey: key},
	}, nil
}
