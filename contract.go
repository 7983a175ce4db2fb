// Package keyroll holds the contract of the HTTP API, which is the source of
// truth for routes, bodies and errors: the server's types are generated from
// it, requests are checked against it, and it is served at /openapi.yaml.
package keyroll

import _ "embed" // for the contract

//go:generate go tool -modfile=tools/go.mod oapi-codegen -config internal/api/oapi-codegen.yaml openapi.yaml

// OpenAPI is openapi.yaml. It is not to be written to.
//
//go:embed openapi.yaml
var OpenAPI []byte
