package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/urfave/cli/v2"
	"golang.org/x/term"

	"polyport/internal/auth"
)

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
