package roll

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"

	"github.com/gowebpki/jcs"
)

// DeclarationHash returns "sha256:" and the hex SHA-256 over the canonical
// JSON (RFC 8785) of a declaration and the version that it replaces: what a
// second person says yes to.
func DeclarationHash(inv Inventory, base int64) (string, error) {
	raw, err := json.Marshal(struct {
		Base        int64     `json:"base_version"`
		Declaration Inventory `json:"declaration"`
	}{base, inv})
	if err != nil {
		return "", fmt.Errorf("encoding the declaration: %w", err)
	}
	canonical, err := jcs.Transform(raw)
	if err != nil {
		return "", fmt.Errorf("making the declaration canonical: %w", err)
	}
	sum := sha256.Sum256(canonical)
	return "sha256:" + hex.EncodeToString(sum[:]), nil
}
