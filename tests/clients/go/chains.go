package main

import (
	"bufio"
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"os"

	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
)

// One certificate with its chain and root, as standard input has it line by line.
type issued struct {
	ID        string
	DNS       []string
	PublicKey []byte
	Chain     [][]byte
	Root      []byte
	NotAfter  int64
}

// `csrs` writes a CSR for each kind of key that Go makes; `chains` verifies what was issued.
func chains(what string) error {
	if what == "csrs" {
		return csrs()
	}
	lines := bufio.NewScanner(os.Stdin)
	lines.Buffer(nil, 1<<20)
	count := 0
	for lines.Scan() {
		var one issued
		if err := json.Unmarshal(lines.Bytes(), &one); err != nil {
			return err
		}
		if err := one.verify(); err != nil {
			return fmt.Errorf("%.80s, %d names: %w", one.ID, len(one.DNS), err)
		}
		count++
	}
	fmt.Println(count)
	return lines.Err()
}

func csrs() error {
	out := json.NewEncoder(os.Stdout)
	for _, kind := range []string{"ec-p256", "ec-p384", "ed25519", "rsa-2048", "rsa-4096"} {
		key, err := generate(kind)
		if err != nil {
			return err
		}
		csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
		if err != nil {
			return err
		}
		spki, err := x509.MarshalPKIXPublicKey(key.Public())
		if err != nil {
			return err
		}
		if err := out.Encode(map[string]any{"kind": kind, "csr": csr, "publicKey": spki}); err != nil {
			return err
		}
	}
	return nil
}

func generate(kind string) (crypto.Signer, error) {
	switch kind {
	case "ec-p256":
		return ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	case "ec-p384":
		return ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	case "ed25519":
		_, key, err := ed25519.GenerateKey(rand.Reader)
		return key, err
	case "rsa-2048":
		return rsa.GenerateKey(rand.Reader, 2048)
	default:
		return rsa.GenerateKey(rand.Reader, 4096)
	}
}

func (one issued) verify() error {
	var certificates []*x509.Certificate
	for _, der := range one.Chain {
		certificate, err := x509.ParseCertificate(der)
		if err != nil {
			return err
		}
		certificates = append(certificates, certificate)
	}
	root, err := x509.ParseCertificate(one.Root)
	if err != nil {
		return err
	}
	leaf := certificates[0]
	id, err := x509svid.IDFromCert(leaf)
	if err != nil {
		return err
	}
	if id.String() != one.ID {
		return fmt.Errorf("it says %.80s", id)
	}
	bundle := x509bundle.FromX509Authorities(id.TrustDomain(), []*x509.Certificate{root})
	if _, _, err := x509svid.Verify(certificates, bundle); err != nil {
		return err
	}
	roots := x509.NewCertPool()
	roots.AddCert(root)
	between := x509.NewCertPool()
	for _, certificate := range certificates[1:] {
		between.AddCert(certificate)
	}
	for _, usage := range []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth} {
		options := x509.VerifyOptions{Roots: roots, Intermediates: between, KeyUsages: []x509.ExtKeyUsage{usage}}
		if _, err := leaf.Verify(options); err != nil {
			return err
		}
	}
	for _, name := range one.DNS {
		if err := leaf.VerifyHostname(name); err != nil {
			return err
		}
	}
	if !bytes.Equal(leaf.RawSubjectPublicKeyInfo, one.PublicKey) {
		return fmt.Errorf("the public key is another one")
	}
	if leaf.NotAfter.Unix() != one.NotAfter {
		return fmt.Errorf("it ends at %d", leaf.NotAfter.Unix())
	}
	if len(leaf.UnhandledCriticalExtensions) > 0 {
		return fmt.Errorf("critical extensions that Go does not know")
	}
	return nil
}
