// A workload that uses go-spiffe, told what to do line by line on standard input; answers are JSON lines.
package main

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/spiffetls/tlsconfig"
	"github.com/spiffe/go-spiffe/v2/svid/jwtsvid"
	"github.com/spiffe/go-spiffe/v2/workloadapi"
)

type answer map[string]any

type workload struct {
	x509 *workloadapi.X509Source
	jwt  *workloadapi.JWTSource
	api  *workloadapi.Client
}

func main() {
	if len(os.Args) == 2 && (os.Args[1] == "csrs" || os.Args[1] == "chains") {
		if err := chains(os.Args[1]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	address := workloadapi.WithClientOptions(workloadapi.WithAddr(os.Args[1]))
	var w workload
	var err error
	for _, open := range []func() error{
		func() error { w.x509, err = workloadapi.NewX509Source(ctx, address); return err },
		func() error { w.jwt, err = workloadapi.NewJWTSource(ctx, address); return err },
		func() error { w.api, err = workloadapi.New(ctx, workloadapi.WithAddr(os.Args[1])); return err },
	} {
		if err := open(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
	out := json.NewEncoder(os.Stdout)
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		said, err := w.do(ctx, strings.Fields(lines.Text()))
		if err != nil {
			said = answer{"error": err.Error()}
		}
		_ = out.Encode(said)
	}
}

func (w *workload) do(ctx context.Context, order []string) (answer, error) {
	switch order[0] {
	case "svid":
		return w.svid()
	case "changed": // waits until the serial number is another one
		for {
			now, err := w.svid()
			if err != nil || now["serial"] != order[1] {
				return now, err
			}
			select {
			case <-ctx.Done():
				return nil, ctx.Err()
			case <-w.x509.Updated():
			}
		}
	case "jwt":
		svid, err := w.jwt.FetchJWTSVID(ctx, jwtsvid.Params{Audience: order[1]})
		if err != nil {
			return nil, err
		}
		return answer{"id": svid.ID.String(), "token": svid.Marshal()}, nil
	case "verify": // with the bundle that was fetched
		svid, err := jwtsvid.ParseAndValidate(order[2], w.jwt, []string{order[1]})
		if err != nil {
			return nil, err
		}
		return answer{"id": svid.ID.String()}, nil
	case "validate": // by the Workload API
		svid, err := w.api.ValidateJWTSVID(ctx, order[2], order[1])
		if err != nil {
			return nil, err
		}
		return answer{"id": svid.ID.String()}, nil
	case "listen":
		return w.listen()
	case "dial":
		return w.dial(order[1], order[2])
	}
	return nil, errors.New("unknown order")
}

func (w *workload) svid() (answer, error) {
	svid, err := w.x509.GetX509SVID()
	if err != nil {
		return nil, err
	}
	bundle, err := w.x509.GetX509BundleForTrustDomain(svid.ID.TrustDomain())
	if err != nil {
		return nil, err
	}
	return answer{
		"id":     svid.ID.String(),
		"serial": hex.EncodeToString(svid.Certificates[0].SerialNumber.Bytes()),
		"roots":  len(bundle.X509Authorities()),
	}, nil
}

// Says `pong` to every member of the trust domain.
func (w *workload) listen() (answer, error) {
	svid, err := w.x509.GetX509SVID()
	if err != nil {
		return nil, err
	}
	config := tlsconfig.MTLSServerConfig(w.x509, w.x509, tlsconfig.AuthorizeMemberOf(svid.ID.TrustDomain()))
	listener, err := tls.Listen("tcp", "127.0.0.1:0", config)
	if err != nil {
		return nil, err
	}
	go func() {
		for {
			connection, err := listener.Accept()
			if err != nil {
				return
			}
			go func() {
				defer connection.Close()
				_ = connection.SetDeadline(time.Now().Add(10 * time.Second))
				question := make([]byte, 4)
				if _, err := io.ReadFull(connection, question); err == nil {
					_, _ = connection.Write([]byte("pong"))
				}
			}()
		}
	}()
	return answer{"address": listener.Addr().String()}, nil
}

// Says `ping` to the workload with this identity and hears what it says.
func (w *workload) dial(address, id string) (answer, error) {
	peer, err := spiffeid.FromString(id)
	if err != nil {
		return nil, err
	}
	config := tlsconfig.MTLSClientConfig(w.x509, w.x509, tlsconfig.AuthorizeID(peer))
	connection, err := tls.Dial("tcp", address, config)
	if err != nil {
		return nil, err
	}
	defer connection.Close()
	_ = connection.SetDeadline(time.Now().Add(10 * time.Second))
	if _, err := connection.Write([]byte("ping")); err != nil {
		return nil, err
	}
	said := make([]byte, 4)
	if _, err := io.ReadFull(connection, said); err != nil {
		return nil, err
	}
	return answer{"said": string(said)}, nil
}
