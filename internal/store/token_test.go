package store_test

import (
	"strings"
	"testing"
	"time"

	"github.com/keyroll/keyroll/internal/access"
	"github.com/keyroll/keyroll/internal/roll"
	"github.com/keyroll/keyroll/internal/store"
)

func TestTokens(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	ctx := t.Context()
	system := roll.Actor{Subject: "cli", Kind: roll.System}
	mint := func(prefix string, expires *time.Time) (store.Token, access.Token) {
		t.Helper()
		secret := access.NewToken()
		if prefix == "" {
			prefix = secret.Prefix
		}
		tok := store.Token{ID: newID(), Name: "portal\x00", Prefix: prefix, ExpiresAt: expires,
			Principal: access.Principal{Subject: "portal", Kind: access.Service, Roles: []access.Role{access.Requester}}}
		must(t, b.st.CreateToken(ctx, tok, secret.Hash, system))
		return tok, secret
	}
	tok, secret := mint("", nil)
	p, err := b.st.PrincipalByHash(ctx, secret.Hash)
	must(t, err)
	if p.TokenID != tok.ID || p.Subject != "portal" || p.Kind != access.Service || len(p.Roles) != 1 {
		t.Errorf("%+v", p)
	}
	soon := b.st.Now().Add(time.Hour)
	_, expiring := mint("", &soon)
	_, err = b.st.PrincipalByHash(ctx, expiring.Hash)
	must(t, err)
	b.exec(`UPDATE api_tokens SET expires_at = now() - interval '1 second' WHERE expires_at IS NOT NULL`)
	_, err = b.st.PrincipalByHash(ctx, expiring.Hash)
	wantErr(t, err, store.ErrNotFound)
	_, err = b.st.PrincipalByHash(ctx, access.NewToken().Hash)
	wantErr(t, err, store.ErrNotFound)

	for range 2 {
		got, err := b.st.RevokeToken(ctx, secret.Prefix, system)
		must(t, err)
		if got.ID != tok.ID || got.RevokedAt == nil {
			t.Fatalf("%+v", got)
		}
	}
	_, err = b.st.PrincipalByHash(ctx, secret.Hash)
	wantErr(t, err, store.ErrNotFound)
	_, err = b.st.RevokeToken(ctx, "nobody", system)
	wantErr(t, err, store.ErrNotFound)

	// A prefix of two tokens revokes neither.
	twin, one1 := mint("krp_twin", nil)
	_, two := mint("krp_twin", nil)
	_, err = b.st.RevokeToken(ctx, "krp_twin", system)
	wantErr(t, err, store.ErrAmbiguous)
	_, err = b.st.PrincipalByHash(ctx, one1.Hash)
	must(t, err)
	if _, err := b.st.RevokeToken(ctx, upper(twin.ID), system); err != nil {
		t.Fatal(err)
	}
	_, err = b.st.PrincipalByHash(ctx, one1.Hash)
	wantErr(t, err, store.ErrNotFound)
	_, err = b.st.PrincipalByHash(ctx, two.Hash)
	must(t, err)

	// No secret stands in any table.
	dump := one[string](b, `SELECT string_agg(query_to_xml('SELECT * FROM ' || quote_ident(relname), true, true, '')::text, '')
	  FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind = 'r'`)
	for _, s := range []access.Token{secret, expiring, one1, two} {
		if body := s.Secret[len(s.Prefix):]; strings.Contains(dump, body) {
			t.Error("a secret is stored")
		}
	}
	all, err := b.st.Tokens(ctx)
	must(t, err)
	if len(all) != 4 {
		t.Errorf("%d tokens", len(all))
	}
	b.verified()
}
