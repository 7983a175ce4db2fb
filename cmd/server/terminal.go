package main

import (
	"encoding/json"
	"io"
	"os"

	"golang.org/x/term"
)

// isTerminal says whether people read w as it is written.
func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// canRedraw says whether lines on w can be drawn over, and how large it is.
func (p *program) canRedraw(w io.Writer) (width, height int, ok bool) {
	if !isTerminal(w) || p.env["NO_COLOR"] != "" || p.env["TERM"] == "dumb" || p.env["TERM"] == "" {
		return 0, 0, false
	}
	width, height, err := term.GetSize(int(w.(*os.File).Fd()))
	return width, height, err == nil && width >= 40
}

func printJSON(w io.Writer, v any) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	return e.Encode(v)
}
