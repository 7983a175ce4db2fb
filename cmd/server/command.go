package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
)

// program is what every command works with.
type program struct {
	env            map[string]string
	stdout, stderr io.Writer
	// about is the sentence that stands above a list of commands.
	about string
}

// environment makes a map of "NAME=value". A variable that is set and empty
// counts as not set: that is how people switch one off.
func environment(environ []string) map[string]string {
	env := map[string]string{}
	for _, entry := range environ {
		if name, value, ok := strings.Cut(entry, "="); ok && value != "" {
			env[name] = value
		}
	}
	return env
}

// command is one command, or a group of them.
type command struct {
	name string
	// args are what follows the flags, for the usage line.
	args string
	// short is one line for lists; long is what --help says.
	short, long string
	examples    []string
	// setup declares the flags and returns what runs the command.
	setup func(p *program, flags *flag.FlagSet) func(ctx context.Context, args []string) error
	// group has commands below this one instead.
	group []command
}

// commands lists them in the order in which a newcomer meets them.
func commands() []command {
	return []command{
		demoCommand(), devCommand(), serveCommand(), migrateCommand(), tokenCommand(), checkCommand(), auditCommand(), discoverCommand(), simCommand(), healthcheckCommand(),
	}
}

// dispatch finds the command that args name and runs it.
func (p *program) dispatch(ctx context.Context, list []command, path string, args []string) error {
	if len(args) == 0 {
		p.listCommands(p.stderr, list, path)
		return misused("which command?")
	}
	name, rest := args[0], args[1:]
	if name == "help" || name == "-h" || name == "-help" || name == "--help" {
		if len(rest) > 0 && name == "help" {
			return p.dispatch(ctx, list, path, append(rest[:len(rest):len(rest)], "--help"))
		}
		p.listCommands(p.stdout, list, path)
		return flag.ErrHelp
	}
	for _, c := range list {
		if c.name != name {
			continue
		}
		if c.group != nil {
			p.about = c.long
			return p.dispatch(ctx, c.group, path+" "+name, rest)
		}
		return p.command(ctx, c, path, rest)
	}
	var names []string
	for _, c := range list {
		names = append(names, c.name)
	}
	p.listCommands(p.stderr, list, path)
	hint := ""
	if near := nearest(name, names); near != "" {
		hint = fmt.Sprintf("; did you mean %q?", near)
	}
	return misused("%q is not a command of %q%s", name, path, hint)
}

// command parses the flags and runs c.
func (p *program) command(ctx context.Context, c command, path string, args []string) error {
	flags := flag.NewFlagSet(c.name, flag.ContinueOnError)
	flags.SetOutput(io.Discard) // what is wrong is told once, by main
	do := c.setup(p, flags)
	if err := flags.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			help(p.stdout, c, path, flags)
			return err
		}
		return misused("%v (see: %s %s --help)", err, path, c.name)
	}
	if flags.NArg() > 0 && c.args == "" {
		return misused("unexpected argument %q (see: %s %s --help)", flags.Arg(0), path, c.name)
	}
	return do(ctx, flags.Args())
}

func (p *program) listCommands(w io.Writer, list []command, path string) {
	fmt.Fprintf(w, "%s\n\nUsage: %s COMMAND [flags]\n\n", p.about, path)
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, c := range list {
		fmt.Fprintf(t, "  %s\t%s\n", c.name, c.short)
	}
	_ = t.Flush()
	fmt.Fprintf(w, "\n%s COMMAND --help says more. Exit codes: 0 done, 1 failed, 2 usage.\n", path)
	if path == "server" {
		fmt.Fprint(w, "New here? Try: server demo\n")
	}
}

func help(w io.Writer, c command, path string, flags *flag.FlagSet) {
	fmt.Fprintf(w, "%s\n\nUsage: %s %s [flags]%s\n", c.long, path, c.name, prefixed(" ", c.args))
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	first := true
	flags.VisitAll(func(f *flag.Flag) {
		if first {
			fmt.Fprint(t, "\nFlags:\n")
			first = false
		}
		value, usage := flag.UnquoteUsage(f)
		fmt.Fprintf(t, "  --%s\t%s\n", f.Name+prefixed(" ", value), usage+defaulted(f))
	})
	_ = t.Flush()
	if len(c.examples) > 0 {
		fmt.Fprint(w, "\nExamples:\n")
		for _, e := range c.examples {
			fmt.Fprintf(w, "  %s\n", e)
		}
	}
}

func prefixed(prefix, s string) string {
	if s == "" {
		return ""
	}
	return prefix + s
}

func defaulted(f *flag.Flag) string {
	if f.DefValue == "" || f.DefValue == "false" {
		return ""
	}
	return " (default " + f.DefValue + ")"
}

// nearest returns the candidate that differs least from a mistyped name, or ""
// where none is near enough to be what was meant.
func nearest(name string, candidates []string) string {
	best, limit := "", max(2, len(name)/4)
	for _, c := range candidates {
		if d := distance(name, c); d <= limit {
			best, limit = c, d-1
		}
	}
	return best
}

// distance is the number of letters to change, add or take away (Levenshtein).
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := 1
			if a[i] == b[j] {
				cost = 0
			}
			diagonal, row[j+1] = row[j+1], min(row[j+1]+1, row[j]+1, diagonal+cost)
		}
	}
	return row[len(b)]
}
