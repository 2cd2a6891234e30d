// Command bench measures polyport beside haproxy, nginx, squid, microsocks,
// tinyproxy, dante, sing-box, xray and a bare relay, on loopback alone, and
// writes docs/performance.md.
//
//	go run ./bench [flags]                            a run
//	go run ./bench report [-page FILE.md] FILE...     tables and page of earlier runs
//
// It stops all that it has started, also when it is interrupted.
package main

import (
	"context"
	"crypto/tls"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"polyport/bench/loopback"
	"polyport/bench/measure"
	"polyport/bench/origin"
	"polyport/bench/report"
	"polyport/bench/yardstick"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := command(ctx, os.Args[1:], os.Stdout, os.Stderr); err != nil && !errors.Is(err, flag.ErrHelp) {
		stop()
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// command runs what the arguments ask for. origin, copy, hop and gotls are for the
// program itself, which starts them as processes of their own.
func command(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	name := ""
	if len(args) > 0 {
		name = args[0]
	}
	switch name {
	case "origin":
		return serveOrigin(ctx, args[1:])
	case "copy":
		return serveCopy(ctx, args[1:])
	case "hop":
		return serveHop(ctx, args[1:])
	case "gotls":
		return serveTLS(ctx, args[1:])
	case "report":
		return writeReport(args[1:], stdout, stderr)
	}
	o, err := parseOptions(args, stderr)
	if err != nil {
		return err
	}
	return run(ctx, o, stdout, stderr)
}

// serveOrigin serves tunnels and HTTP on two addresses, and datagrams on the
// first, until the context ends.
func serveOrigin(ctx context.Context, args []string) error {
	if len(args) != 2 {
		return errors.New("origin wants two addresses, for tunnels and for HTTP")
	}
	s, err := origin.New()
	if err != nil {
		return err
	}
	for i, serve := range []func(net.Listener){s.Serve, origin.ServeHTTP} {
		l, err := loopback.Listen(args[i])
		if err != nil {
			return err
		}
		defer l.Close()
		go serve(l)
	}
	c, err := origin.ListenUDP(args[0])
	if err != nil {
		return err
	}
	defer c.Close()
	go s.ServeUDP(c)
	<-ctx.Done()
	return nil
}

// serveCopy is the yardstick on one address, with or without a next hop, until the context ends.
func serveCopy(ctx context.Context, args []string) error {
	switch len(args) {
	case 1:
		return serveOn(ctx, args[0], yardstick.Serve)
	case 2:
		hop, err := loopback.Check(args[1])
		if err != nil {
			return err
		}
		return serveOn(ctx, args[0], func(l net.Listener) { yardstick.ServeThrough(l, hop) })
	}
	return errors.New("copy wants the address to listen on, and that of the next hop if there is one")
}

// serveHop is the next hop on one address until the context ends.
func serveHop(ctx context.Context, args []string) error {
	if len(args) != 2 {
		return errors.New("hop wants the address to listen on and the origin's")
	}
	target, err := loopback.Check(args[1])
	if err != nil {
		return err
	}
	return serveOn(ctx, args[0], func(l net.Listener) { yardstick.ServeHop(l, target) })
}

func serveOn(ctx context.Context, addr string, serve func(net.Listener)) error {
	l, err := loopback.Listen(addr)
	if err != nil {
		return err
	}
	defer l.Close()
	go serve(l)
	<-ctx.Done()
	return nil
}

// serveTLS is the yardstick of TLS on two addresses, without TLS and with it,
// until the context ends.
func serveTLS(ctx context.Context, args []string) error {
	if len(args) != 5 {
		return errors.New("gotls wants two addresses, the origin's address, a certificate and its key")
	}
	target, err := loopback.Check(args[2])
	if err != nil {
		return err
	}
	cert, err := tls.LoadX509KeyPair(args[3], args[4])
	if err != nil {
		return err
	}
	for i, config := range []*tls.Config{nil, {Certificates: []tls.Certificate{cert}}} {
		l, err := loopback.Listen(args[i])
		if err != nil {
			return err
		}
		defer l.Close()
		go yardstick.TLS{Config: config, Target: target}.Serve(l)
	}
	<-ctx.Done()
	return nil
}

// writeReport writes the tables of files, and the page and its drawing if asked to.
func writeReport(args []string, stdout, stderr io.Writer) error {
	fs := flag.NewFlagSet("report", flag.ContinueOnError)
	fs.SetOutput(stderr)
	page := fs.String("page", "", "write this page, and its drawing beside it")
	if err := fs.Parse(args); err != nil {
		return err
	}
	if fs.NArg() == 0 && *page == "" {
		return errors.New("report wants the files that runs have written, such as build/bench.jsonl")
	}
	info, all, err := measure.ReadFiles(fs.Args())
	if err != nil {
		return err
	}
	data := report.NewData(all)
	fmt.Fprint(stdout, report.Text(data))
	if *page == "" {
		return nil
	}
	return writePage(*page, info, data)
}

// writePage writes a page and, beside it, its drawing.
func writePage(path string, info measure.Run, data *report.Data) error {
	base, ok := strings.CutSuffix(path, ".md")
	if !ok {
		return fmt.Errorf("-page %s: the page is Markdown, its name ends in .md", path)
	}
	plot := base + ".svg"
	text, err := report.Page(info, data, plot[strings.LastIndexByte(plot, '/')+1:])
	if err != nil {
		return err
	}
	if drawing := report.Plot(data); drawing != "" {
		if err := os.WriteFile(plot, []byte(drawing), 0o644); err != nil {
			return err
		}
	}
	return os.WriteFile(path, []byte(text), 0o644)
}
