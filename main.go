// Command polyport serves every kind of proxy client on one listening port.
// Its files are the command line: flags and commands, nothing else.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/urfave/cli/v2"

	"polyport/internal/daemon"
	"polyport/internal/doctor"
	"polyport/internal/file"
)

// Exit codes.
const (
	exitFine      = 0
	exitBad       = 1 // the configuration or the answer is bad
	exitUsage     = 2
	exitPortTaken = 3
)

func main() { os.Exit(run(os.Args, os.Stdin, os.Stdout, os.Stderr)) }

// run runs one command and returns its exit code.
func run(args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	app := newApp(stdin, stdout, stderr)
	err := app.Run(args)
	if err == nil {
		return exitFine
	}
	if msg := err.Error(); msg != "" {
		fmt.Fprintln(stderr, "polyport: "+msg)
	}
	return exitCode(err)
}

// usageError is a command line that cannot be understood.
type usageError struct{ error }

func usagef(format string, a ...any) error { return usageError{fmt.Errorf(format, a...)} }

// exitCode maps an error to what the shell gets.
func exitCode(err error) int {
	var usage usageError
	var taken *daemon.PortTakenError
	switch {
	case errors.As(err, &usage):
		return exitUsage
	case errors.As(err, &taken):
		return exitPortTaken
	}
	return exitBad
}

// silentError is an error whose text has been printed already.
type silentError struct{}

// Error implements error.
func (silentError) Error() string { return "" }

func newApp(stdin io.Reader, stdout, stderr io.Writer) *cli.App {
	c := &commands{stdin: stdin, stdout: stdout, stderr: stderr}
	return &cli.App{
		Name:  "polyport",
		Usage: "one port for every kind of proxy client",
		Description: "Without a command polyport serves. Without a file it listens on 127.0.0.1:7659 and\n" +
			"lets this machine alone reach public addresses.",
		Version:              daemon.Version(),
		HideVersion:          true, // there is a command for it
		Flags:                serveFlags(),
		Action:               c.serve,
		Commands:             c.all(),
		Reader:               stdin,
		Writer:               stdout,
		ErrWriter:            stderr,
		EnableBashCompletion: true,
		ExitErrHandler:       func(*cli.Context, error) {}, // run maps errors to exit codes
		OnUsageError:         onUsageError,
		CommandNotFound:      nil,
	}
}

// onUsageError keeps cli from printing the whole help for one misspelt flag.
func onUsageError(c *cli.Context, err error, _ bool) error {
	const unknown = "flag provided but not defined: -"
	if flag, ok := strings.CutPrefix(err.Error(), unknown); ok {
		err = fmt.Errorf("there is no flag --%s%s", strings.TrimLeft(flag, "-"), didYouMean(flag, cli.SuggestFlag(c.Command.Flags, flag, false)))
	}
	return usagef("%w. See '%s --help'", err, c.Command.HelpName)
}

// noCommand is the error for a word that is no command of c.
func noCommand(c *cli.Context) error {
	word := c.Args().First()
	hint := cli.SuggestCommand(c.Command.Subcommands, word) // a sentence with the nearest one in quotes
	if parts := strings.Split(hint, `"`); len(parts) == 3 {
		hint = didYouMean(word, parts[1])
	}
	return usagef("there is no command %q%s. See '%s --help'", word, hint, c.Command.HelpName)
}

// didYouMean proposes the word that cli finds nearest, unless it is far: cli always finds one.
func didYouMean(word, nearest string) string {
	if n := strings.TrimLeft(nearest, "-"); word == "" || n == "" || n[0] != word[0] {
		return ""
	}
	return " (did you mean " + nearest + "?)"
}

// commands holds what all commands read from and write to.
type commands struct {
	stdin          io.Reader
	stdout, stderr io.Writer
}

func (c *commands) all() []*cli.Command {
	list := []*cli.Command{
		{Name: "serve", Usage: "run the gateway (what polyport does without a command)", Flags: serveFlags(), Action: c.serve},
		c.checkCommand(), c.explainCommand(), c.doctorCommand(), c.userCommand(), c.certCommand(), c.completionCommand(),
		{Name: "version", Usage: "print version, commit and Go version", Action: c.version},
	}
	for _, cmd := range list {
		cmd.OnUsageError = onUsageError
	}
	return list
}

func configFlag() cli.Flag {
	return &cli.StringFlag{Name: "config", Aliases: []string{"c"}, Usage: "read the configuration from `FILE`", EnvVars: []string{"POLYPORT_CONFIG"}, TakesFile: true}
}

// serveFlags serve those who want no file. Each has an environment twin.
func serveFlags() []cli.Flag {
	return []cli.Flag{
		configFlag(),
		&cli.StringSliceFlag{Name: "listen", Usage: "listen on `ADDRESS:PORT`, instead of the file's addresses", EnvVars: []string{"POLYPORT_LISTEN"}},
		&cli.StringFlag{Name: "htpasswd", Usage: "require users, from `FILE` (see 'polyport user add')", EnvVars: []string{"POLYPORT_HTPASSWD"}, TakesFile: true},
		&cli.StringSliceFlag{Name: "allow-client", Usage: "let clients of `PREFIX` use the gateway", EnvVars: []string{"POLYPORT_ALLOW_CLIENT"}},
		&cli.StringSliceFlag{Name: "allow-target", Usage: "let the allowed clients reach `TARGET`: a name, a pattern or a prefix", EnvVars: []string{"POLYPORT_ALLOW_TARGET"}},
		&cli.BoolFlag{Name: "allow-open-proxy", Usage: "start although anyone on the network could use the gateway", DisableDefaultText: true, EnvVars: []string{"POLYPORT_ALLOW_OPEN_PROXY"}},
	}
}

func noArguments(ctx *cli.Context) error {
	switch {
	case !ctx.Args().Present():
		return nil
	case ctx.Command.HelpName == ctx.App.Name:
		return noCommand(ctx)
	}
	return usagef("%q has no place here. See '%s --help'", ctx.Args().First(), ctx.Command.HelpName)
}

func (c *commands) daemonOptions(ctx *cli.Context) daemon.Options {
	return daemon.Options{
		Path: ctx.String("config"),
		Flags: daemon.Flags{
			Listen:         said(ctx.StringSlice("listen")),
			Htpasswd:       ctx.String("htpasswd"),
			AllowClient:    said(ctx.StringSlice("allow-client")),
			AllowTarget:    said(ctx.StringSlice("allow-target")),
			AllowOpenProxy: ctx.Bool("allow-open-proxy"),
		},
		Stdout: c.stdout,
		Stderr: c.stderr,
	}
}

// said drops what is empty: a variable of the environment that is set to nothing, as
// over that of a container image, says nothing.
func said(values []string) []string {
	return slices.DeleteFunc(values, func(s string) bool { return s == "" })
}

// serve runs the gateway until SIGTERM or SIGINT, which drain; a second one
// ends at once. SIGHUP reloads.
func (c *commands) serve(ctx *cli.Context) error {
	if err := noArguments(ctx); err != nil {
		return err
	}
	// Each has a channel of its own: no number of reloads keeps a signal to stop from being heard.
	hangups, stops := make(chan os.Signal, 1), make(chan os.Signal, 2)
	signal.Notify(hangups, syscall.SIGHUP)
	signal.Notify(stops, syscall.SIGTERM, syscall.SIGINT)
	defer signal.Stop(hangups)
	defer signal.Stop(stops)
	d, err := daemon.Start(context.Background(), c.daemonOptions(ctx))
	if err != nil {
		return err
	}
	for stopping := false; !stopping; {
		select {
		case <-hangups:
			d.ReloadAndLog(context.Background())
		case <-stops:
			stopping = true
		}
	}
	drain, cancel := context.WithCancel(context.Background())
	defer cancel()
	go func() {
		select {
		case <-stops:
			cancel()
		case <-drain.Done():
		}
	}()
	return d.Stop(drain)
}

func (c *commands) version(*cli.Context) error {
	fmt.Fprintln(c.stdout, daemon.VersionLine())
	return nil
}

func (c *commands) checkCommand() *cli.Command {
	return &cli.Command{
		Name:  "check",
		Usage: "find every fault of a configuration without running it",
		Flags: serveFlags(),
		Action: func(ctx *cli.Context) error {
			if err := noArguments(ctx); err != nil {
				return err
			}
			return daemon.Check(c.daemonOptions(ctx), c.stdout)
		},
	}
}

func (c *commands) explainCommand() *cli.Command {
	return &cli.Command{
		Name:      "explain",
		Usage:     "say which rule decides for a target, why, and which way it would leave; nothing is dialled",
		ArgsUsage: "[TARGET]",
		Description: "TARGET is host:port, as in 'polyport explain --client 192.0.2.7 --user alice example.com:443'.\n" +
			"Flags stand before it. Rows of your own (--protocol ssh) need none. The exit code is 0 if it would be allowed, 1 if not.",
		Flags: append(serveFlags(),
			&cli.StringFlag{Name: "client", Usage: "the client's `ADDRESS`, or its address with the port that it connects from", Value: "127.0.0.1"},
			&cli.StringFlag{Name: "user", Usage: "the authenticated user's `NAME`, with its parameters if there are any (alice+exit-eu)"},
			&cli.StringFlag{Name: "protocol", Usage: "the `ROW` of the protocol table", Value: "connect"},
			&cli.StringFlag{Name: "method", Usage: "the `METHOD`, where the row has several"},
			&cli.BoolFlag{Name: "site", Usage: "TARGET is asked for as browsers ask a web site, by name of [site.NAME]; the row is http"},
			&cli.StringFlag{Name: "listener", Usage: "the `NAME` of the listener; the first one if it is not said"},
		),
		Action: c.explain,
	}
}

func (c *commands) explain(ctx *cli.Context) error {
	const usage = "explain takes one TARGET (host:port), behind its flags"
	if ctx.NArg() > 1 {
		return usagef(usage)
	}
	client, err := parseClient(ctx.String("client"))
	if err != nil {
		return err
	}
	err = daemon.Explain(context.Background(), c.daemonOptions(ctx), daemon.Question{
		Client:   client.Addr().Unmap().WithZone(""),
		Port:     client.Port(),
		User:     ctx.String("user"),
		Protocol: ctx.String("protocol"),
		Method:   ctx.String("method"),
		Listener: ctx.String("listener"),
		Target:   ctx.Args().First(),
		Site:     ctx.Bool("site"),
		At:       time.Now(),
	}, c.stdout)
	switch {
	case errors.Is(err, daemon.ErrDenied):
		return silentError{} // the answer has been printed
	case errors.Is(err, daemon.ErrNoTarget):
		return usagef(usage)
	}
	return err
}

// parseClient reads an address with or without a port; port 0 is none.
func parseClient(s string) (netip.AddrPort, error) {
	if ap, err := netip.ParseAddrPort(s); err == nil {
		return ap, nil
	}
	a, err := netip.ParseAddr(s)
	if err != nil {
		return netip.AddrPort{}, usagef("--client: %q is neither an IP address nor one with a port", s)
	}
	return netip.AddrPortFrom(a, 0), nil
}

func (c *commands) doctorCommand() *cli.Command {
	return &cli.Command{
		Name:      "doctor",
		Usage:     "speak every row of the protocol table to a running port and say in words what is wrong",
		ArgsUsage: "[PROXY_ADDR]",
		Description: "PROXY_ADDR is host:port; if it is not said, the first address in POLYPORT_LISTEN, or " + doctor.DefaultAddress + ".\n" +
			"The exit code is 0 if every row answers in its own protocol (a refusal is an answer), 1 if not: fit for a\n" +
			"container's health check. The check \"udp\" belongs to the row socks5 and says whether UDP ASSOCIATE is to be had.",
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "config", Aliases: []string{"c"}, Usage: "check the servers of the upstreams and backends in `FILE` too, from here", TakesFile: true}, // never POLYPORT_CONFIG: a container is healthy although a server is down
			&cli.StringFlag{Name: "user", Usage: "log in as `NAME`; the password is read from POLYPORT_PASSWORD", EnvVars: []string{"POLYPORT_USER"}},
			&cli.StringFlag{Name: "target", Usage: "reach `HOST:PORT` through every row, instead of taking a refusal for an answer"},
			&cli.StringFlag{Name: "tls-name", Usage: "send the server `NAME` (SNI) to the row tls, which must pass it on"},
			&cli.StringFlag{Name: "secure", Usage: "check every row inside TLS to the gateway itself, which has the `NAME` there"},
			&cli.StringFlag{Name: "ca", Usage: "trust the CAs in `FILE` (PEM) for that, instead of the system's", TakesFile: true},
			&cli.StringSliceFlag{Name: "row", Usage: "check only this `ROW`, where the listener does not serve all of them"},
			&cli.DurationFlag{Name: "timeout", Usage: "wait up to `DURATION` for each row", Value: doctor.DefaultTimeout},
			&cli.BoolFlag{Name: "quiet", Aliases: []string{"q"}, Usage: "print only what is wrong", DisableDefaultText: true},
		},
		Action: c.doctor,
	}
}

func (c *commands) doctor(ctx *cli.Context) error {
	if ctx.NArg() > 1 {
		return usagef("doctor takes one PROXY_ADDR (host:port), behind its flags")
	}
	address := ctx.Args().First()
	if address == "" { // a container's health check asks where its gateway listens
		address, _, _ = strings.Cut(os.Getenv("POLYPORT_LISTEN"), ",")
	}
	if address == "" {
		address = doctor.DefaultAddress
	}
	roots, err := file.CertPool(ctx.String("ca"))
	if err != nil {
		return fmt.Errorf("--ca: %w", err)
	}
	servers, err := c.checkServers(ctx) // first, since a faulty file makes the rest worth nothing
	if err != nil {
		return err
	}
	checks := doctor.Run(context.Background(), doctor.Options{
		Address:  address,
		User:     ctx.String("user"),
		Password: os.Getenv("POLYPORT_PASSWORD"),
		Target:   ctx.String("target"),
		TLSName:  ctx.String("tls-name"),
		Secure:   ctx.String("secure"),
		Roots:    roots,
		Rows:     ctx.StringSlice("row"),
		Timeout:  ctx.Duration("timeout"),
	})
	if healthy := doctor.Print(c.stdout, append(checks, servers...), ctx.Bool("quiet")); !healthy {
		return silentError{}
	}
	return nil
}

// checkServers looks at the servers of the upstreams and backends of the file that doctor was given; none without one.
func (c *commands) checkServers(ctx *cli.Context) ([]doctor.Check, error) {
	path := ctx.String("config")
	if path == "" {
		return nil, nil
	}
	found, err := daemon.CheckServers(context.Background(), daemon.Options{Path: path},
		daemon.ServersOptions{Target: ctx.String("target"), Timeout: ctx.Duration("timeout")})
	if err != nil {
		return nil, err
	}
	checks := make([]doctor.Check, len(found))
	for i, f := range found {
		checks[i] = doctor.Check{Row: f.Pool, What: f.What, OK: f.Err == nil, Took: f.Took, Detail: "it is up"}
		if f.Err != nil {
			checks[i].Detail = "it is down: " + f.Err.Error()
		}
	}
	return checks, nil
}
