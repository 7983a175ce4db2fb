// Command nmprobe is the smallest program with this package and html/template
// in it. A test looks at which SDK methods it links.
package main

import (
	"html/template"
	"net/http"
	"os"

	"github.com/keyroll/keyroll/internal/keyvault"
)

func main() {
	c, err := keyvault.New(os.Args[1], nil, http.DefaultClient)
	if err != nil {
		os.Exit(1)
	}
	// Execute with a value of ours is what makes the linker keep methods that
	// only reflection could call.
	_ = template.Must(template.New("t").Parse("{{.}}")).Execute(os.Stdout, c)
}
