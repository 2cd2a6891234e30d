package main

import (
	"time"

	"github.com/urfave/cli/v2"

	"polyport/internal/localca"
)

func (c *commands) certCommand() *cli.Command {
	return &cli.Command{
		Name:      "cert",
		Usage:     "make a local CA and a certificate for trying TLS out, and say how clients are told to trust it",
		ArgsUsage: "[NAME...]",
		Description: "NAME is a DNS name or an IP address of the gateway; without any: localhost, 127.0.0.1, ::1 and this\n" +
			"machine's name, or those of the certificate that is there. Flags stand before them. A second run renews the\n" +
			"certificate under the same CA, which can vouch for the names of the first run and for nothing else.",
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "dir", Usage: "keep the files in `FOLDER`", Value: "tls", EnvVars: []string{"POLYPORT_CERT_DIR"}, TakesFile: true},
			&cli.StringFlag{Name: "client", Usage: "make a certificate of the client `NAME` instead"},
		},
		Action: c.cert,
	}
}

func (c *commands) cert(ctx *cli.Context) error {
	if !ctx.IsSet("client") {
		made, err := localca.Server(ctx.String("dir"), ctx.Args().Slice(), time.Now())
		if err != nil {
			return err
		}
		return made.WriteServer(c.stdout)
	}
	if err := noArguments(ctx); err != nil {
		return err
	}
	made, err := localca.Client(ctx.String("dir"), ctx.String("client"), time.Now())
	if err != nil {
		return err
	}
	return made.WriteClient(c.stdout)
}
