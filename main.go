// Command polyport serves every kind of proxy client on one listening port.
// This file is the command line: flags and commands, nothing else.
package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/netip"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/urfave/cli/v2"
	"golang.org/x/term"

	"polyport/internal/auth"
	"polyport/internal/daemon"
	"polyport/internal/doctor"
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
		c.checkCommand(), c.explainCommand(), c.doctorCommand(), c.userCommand(), c.completionCommand(),
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
			Listen:         ctx.StringSlice("listen"),
			Htpasswd:       ctx.String("htpasswd"),
			AllowClient:    ctx.StringSlice("allow-client"),
			AllowTarget:    ctx.StringSlice("allow-target"),
			AllowOpenProxy: ctx.Bool("allow-open-proxy"),
		},
		Stdout: c.stdout,
		Stderr: c.stderr,
	}
}

// serve runs the gateway until SIGTERM or SIGINT, which drain; a second one
// ends at once. SIGHUP reloads.
func (c *commands) serve(ctx *cli.Context) error {
	if err := noArguments(ctx); err != nil {
		return err
	}
	signals := make(chan os.Signal, 4)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP)
	defer signal.Stop(signals)
	d, err := daemon.Start(context.Background(), c.daemonOptions(ctx))
	if err != nil {
		return err
	}
	for s := range signals {
		if s != syscall.SIGHUP {
			break
		}
		d.ReloadAndLog(context.Background())
	}
	drain, cancel := context.WithCancel(context.Background())
	defer cancel()
	go func() {
		for s := range signals {
			if s != syscall.SIGHUP {
				cancel()
			}
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
		ArgsUsage: "TARGET",
		Description: "TARGET is host:port, as in 'polyport explain --client 192.0.2.7 --user alice example.com:443'.\n" +
			"Flags stand before it. The exit code is 0 if it would be allowed, 1 if not.",
		Flags: append(serveFlags(),
			&cli.StringFlag{Name: "client", Usage: "the client's `ADDRESS`", Value: "127.0.0.1"},
			&cli.StringFlag{Name: "user", Usage: "the authenticated user's `NAME`"},
			&cli.StringFlag{Name: "protocol", Usage: "the `ROW` of the protocol table", Value: "connect"},
			&cli.StringFlag{Name: "method", Usage: "the `METHOD`, where the row has several"},
			&cli.StringFlag{Name: "listener", Usage: "the `NAME` of the listener; the first one if it is not said"},
		),
		Action: c.explain,
	}
}

func (c *commands) explain(ctx *cli.Context) error {
	if ctx.NArg() != 1 {
		return usagef("explain takes one TARGET (host:port), behind its flags")
	}
	client, err := netip.ParseAddr(ctx.String("client"))
	if err != nil {
		return usagef("--client: %q is not an IP address", ctx.String("client"))
	}
	err = daemon.Explain(context.Background(), c.daemonOptions(ctx), daemon.Question{
		Client:   client.Unmap().WithZone(""),
		User:     ctx.String("user"),
		Protocol: ctx.String("protocol"),
		Method:   ctx.String("method"),
		Listener: ctx.String("listener"),
		Target:   ctx.Args().First(),
		At:       time.Now(),
	}, c.stdout)
	if errors.Is(err, daemon.ErrDenied) {
		return silentError{} // the answer has been printed
	}
	return err
}

func (c *commands) doctorCommand() *cli.Command {
	return &cli.Command{
		Name:      "doctor",
		Usage:     "speak every row of the protocol table to a running port and say in words what is wrong",
		ArgsUsage: "[PROXY_ADDR]",
		Description: "PROXY_ADDR is host:port; if it is not said, the first address in POLYPORT_LISTEN, or " + doctor.DefaultAddress + ".\n" +
			"The exit code is 0 if every row answers in its own protocol (a refusal is an answer), 1 if not: fit for a\n" +
			"container's health check.",
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "user", Usage: "log in as `NAME`; the password is read from POLYPORT_PASSWORD", EnvVars: []string{"POLYPORT_USER"}},
			&cli.StringFlag{Name: "target", Usage: "reach `HOST:PORT` through every row, instead of taking a refusal for an answer"},
			&cli.StringFlag{Name: "tls-name", Usage: "send the server `NAME` (SNI) to the row tls, which must pass it on"},
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
	checks := doctor.Run(context.Background(), doctor.Options{
		Address:  address,
		User:     ctx.String("user"),
		Password: os.Getenv("POLYPORT_PASSWORD"),
		Target:   ctx.String("target"),
		TLSName:  ctx.String("tls-name"),
		Rows:     ctx.StringSlice("row"),
		Timeout:  ctx.Duration("timeout"),
	})
	if healthy := doctor.Print(c.stdout, checks, ctx.Bool("quiet")); !healthy {
		return silentError{}
	}
	return nil
}

func (c *commands) userCommand() *cli.Command {
	flags := []cli.Flag{
		&cli.StringFlag{Name: "htpasswd", Usage: "the `FILE` of users", Value: "users.htpasswd", EnvVars: []string{"POLYPORT_HTPASSWD"}, TakesFile: true},
	}
	sub := []*cli.Command{
		{Name: "add", Usage: "add a user, or change the password; it is asked for, or read from standard input", ArgsUsage: "NAME", Flags: flags, Action: c.userAdd},
		{Name: "remove", Usage: "remove a user", ArgsUsage: "NAME", Flags: flags, Action: c.userRemove},
		{Name: "list", Usage: "list the users' names", Flags: flags, Action: c.userList},
	}
	for _, s := range sub {
		s.OnUsageError = onUsageError
	}
	return &cli.Command{
		Name: "user", Usage: "edit the htpasswd file", Subcommands: sub,
		UsageText: "polyport user add|remove|list [command options] [NAME]",
		Action: func(ctx *cli.Context) error {
			if ctx.Args().Present() {
				return noCommand(ctx)
			}
			return usagef("user takes add, remove or list. See 'polyport user --help'")
		},
	}
}

func oneName(ctx *cli.Context) (string, error) {
	if ctx.NArg() != 1 {
		return "", usagef("%s takes one NAME, behind its flags", ctx.Command.HelpName)
	}
	return ctx.Args().First(), nil
}

func (c *commands) userAdd(ctx *cli.Context) error {
	name, err := oneName(ctx)
	if err != nil {
		return err
	}
	password, err := c.readPassword(name)
	if err != nil {
		return err
	}
	file := ctx.String("htpasswd")
	replaced, err := auth.SetUser(file, name, password)
	if err != nil {
		return err
	}
	verb := "added to"
	if replaced {
		verb = "has a new password in"
	}
	fmt.Fprintf(c.stdout, "%s %s %s\n", name, verb, file)
	return nil
}

// readPassword asks twice at a terminal, and reads one line from anything else.
// It never comes from the command line, where every user of the machine could see it.
func (c *commands) readPassword(name string) (string, error) {
	f, ok := c.stdin.(*os.File)
	if !ok || !term.IsTerminal(int(f.Fd())) {
		line, err := bufio.NewReader(io.LimitReader(c.stdin, 4<<10)).ReadString('\n')
		if err != nil && !errors.Is(err, io.EOF) {
			return "", fmt.Errorf("read the password from standard input: %w", err)
		}
		return strings.TrimRight(line, "\r\n"), nil
	}
	var entered [2]string
	for i, prompt := range []string{"password for " + name + ": ", "once more: "} {
		fmt.Fprint(c.stderr, prompt)
		b, err := term.ReadPassword(int(f.Fd()))
		fmt.Fprintln(c.stderr)
		if err != nil {
			return "", fmt.Errorf("read the password: %w", err)
		}
		entered[i] = string(b)
	}
	if entered[0] != entered[1] {
		return "", errors.New("the two passwords differ; nothing was changed")
	}
	return entered[0], nil
}

func (c *commands) userRemove(ctx *cli.Context) error {
	name, err := oneName(ctx)
	if err != nil {
		return err
	}
	if err := auth.RemoveUser(ctx.String("htpasswd"), name); err != nil {
		return err
	}
	fmt.Fprintf(c.stdout, "%s removed from %s\n", name, ctx.String("htpasswd"))
	return nil
}

func (c *commands) userList(ctx *cli.Context) error {
	if err := noArguments(ctx); err != nil {
		return err
	}
	names, err := auth.ListUsers(ctx.String("htpasswd"))
	for _, name := range names {
		fmt.Fprintln(c.stdout, name)
	}
	return err
}

func (c *commands) completionCommand() *cli.Command {
	return &cli.Command{
		Name:        "completion",
		Usage:       "print the completion script of a shell",
		ArgsUsage:   "bash|zsh|fish",
		Description: "For example: source <(polyport completion bash)",
		BashComplete: func(*cli.Context) {
			fmt.Fprintln(c.stdout, strings.Join(slices.Sorted(maps.Keys(completionScripts)), "\n"))
		},
		Action: func(ctx *cli.Context) error {
			script, ok := completionScripts[ctx.Args().First()]
			if !ok || ctx.NArg() != 1 {
				return usagef("completion takes one shell: bash, zsh or fish")
			}
			fmt.Fprint(c.stdout, script)
			return nil
		},
	}
}

// completionScripts ask polyport itself, so they never go stale.
var completionScripts = map[string]string{
	"bash": `_polyport() {
  local IFS=$'\n' word="${COMP_WORDS[$COMP_CWORD]}" words=("${COMP_WORDS[@]:0:$COMP_CWORD}")
  if [[ $word == -* ]]; then
    words+=("$word")
  elif [[ ${COMP_WORDS[COMP_CWORD-1]} == -* ]]; then # the value of a flag: a file, perhaps
    return
  fi
  COMPREPLY=($(compgen -W "$("${words[@]}" --generate-bash-completion 2>/dev/null)" -- "$word"))
}
complete -o bashdefault -o default -F _polyport polyport
`,
	"zsh": `#compdef polyport
_polyport() {
  local -a line candidates
  line=(${words[1,CURRENT-1]})
  if [[ ${words[CURRENT]} == -* ]]; then
    line+=(${words[CURRENT]})
  elif [[ ${line[-1]} == -* ]]; then # the value of a flag: a file, perhaps
    _files
    return
  fi
  candidates=("${(@f)$(${line} --generate-bash-completion 2>/dev/null)}")
  candidates=(${candidates:#}) # without empty ones
  if (( ${#candidates} )); then compadd -a candidates; else _files; fi
}
compdef _polyport polyport
`,
	"fish": `function __polyport_candidates
  set -l line (commandline -opc)
  set -l word (commandline -ct)
  string match -q -- '-*' $word; and set -a line $word
  $line --generate-bash-completion 2>/dev/null
end
complete -c polyport -f -a '(__polyport_candidates)'
complete -c polyport -s c -l config -l htpasswd -r -F
`,
}
