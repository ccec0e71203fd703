// SPIRE's own server command line, without the command that runs a server: the packages are SPIRE's, the list of them is here.
package main

import (
	"fmt"
	"os"

	"github.com/mitchellh/cli"
	"github.com/spiffe/spire/cmd/spire-server/cli/bundle"
	"github.com/spiffe/spire/cmd/spire-server/cli/entry"
	"github.com/spiffe/spire/cmd/spire-server/cli/federation"
	"github.com/spiffe/spire/cmd/spire-server/cli/healthcheck"
	"github.com/spiffe/spire/cmd/spire-server/cli/jwt"
	authjwt "github.com/spiffe/spire/cmd/spire-server/cli/localauthority/jwt"
	authx509 "github.com/spiffe/spire/cmd/spire-server/cli/localauthority/x509"
	"github.com/spiffe/spire/cmd/spire-server/cli/x509"
)

func main() {
	c := cli.NewCLI("spire-server", "1.15.2")
	c.Args = os.Args[1:]
	c.Commands = map[string]cli.CommandFactory{}
	for name, command := range map[string]cli.Command{
		"bundle count":                 bundle.NewCountCommand(),
		"bundle show":                  bundle.NewShowCommand(),
		"bundle list":                  bundle.NewListCommand(),
		"bundle set":                   bundle.NewSetCommand(),
		"bundle delete":                bundle.NewDeleteCommand(),
		"entry count":                  entry.NewCountCommand(),
		"entry create":                 entry.NewCreateCommand(),
		"entry update":                 entry.NewUpdateCommand(),
		"entry delete":                 entry.NewDeleteCommand(),
		"entry show":                   entry.NewShowCommand(),
		"federation create":            federation.NewCreateCommand(),
		"federation delete":            federation.NewDeleteCommand(),
		"federation list":              federation.NewListCommand(),
		"federation show":              federation.NewShowCommand(),
		"federation refresh":           federation.NewRefreshCommand(),
		"federation update":            federation.NewUpdateCommand(),
		"healthcheck":                  healthcheck.NewHealthCheckCommand(),
		"x509 mint":                    x509.NewMintCommand(),
		"jwt mint":                     jwt.NewMintCommand(),
		"localauthority x509 show":     authx509.NewX509ShowCommand(),
		"localauthority x509 prepare":  authx509.NewX509PrepareCommand(),
		"localauthority x509 activate": authx509.NewX509ActivateCommand(),
		"localauthority x509 taint":    authx509.NewX509TaintCommand(),
		"localauthority x509 revoke":   authx509.NewX509RevokeCommand(),
		"localauthority jwt show":      authjwt.NewJWTShowCommand(),
		"localauthority jwt prepare":   authjwt.NewJWTPrepareCommand(),
		"localauthority jwt activate":  authjwt.NewJWTActivateCommand(),
	} {
		c.Commands[name] = func() (cli.Command, error) { return command, nil }
	}
	status, err := c.Run()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		status = 1
	}
	os.Exit(status)
}
