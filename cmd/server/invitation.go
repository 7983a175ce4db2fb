package main

import (
	"fmt"
	"io"

	"github.com/keyroll/keyroll/internal/sim"
)

// invitation prints addresses, tokens, and lines to paste into a shell.
type invitation struct {
	w            io.Writer
	url, control string
	secrets      map[string]string // by subject
}

// print shows it; rollID is a roll to look at, or "".
func (i invitation) print(rollID string) {
	say := func(format string, args ...any) { fmt.Fprintf(i.w, format+"\n", args...) }
	say("Keyroll      %s  (page, /openapi.yaml, /metrics)", i.url)
	say("Simulators   %s  (/witness, /state, /faults)", i.control)
	say("")
	say("# Paste into a shell, from top to bottom:")
	say("KEYROLL=%s SIMULATORS=%s", i.url, i.control)
	say("RITA=%s   # requester, operator", i.secrets["rita@contoso.com"])
	say("ARNO=%s   # approver, operator", i.secrets["arno@contoso.com"])
	say("ADA=%s   # admin, auditor", i.secrets["ada@contoso.com"])
	say("TENANT=%s", sim.ContosoTenant)
	if rollID != "" {
		say("ROLL=%s", rollID)
		say("# This roll, and its audit entries:")
		say(`curl -s -H "Authorization: Bearer $RITA" $KEYROLL/v1/rolls/$ROLL`)
		say(`curl -s -H "Authorization: Bearer $ADA" $KEYROLL/v1/rolls/$ROLL/events`)
		say("# What an auditor takes away of it (a zip):")
		say(`curl -sOJ -H "Authorization: Bearer $ADA" $KEYROLL/v1/rolls/$ROLL/evidence`)
	}
	say("# Every key version that must stay:")
	say(`curl -s -H "Authorization: Bearer $ADA" $KEYROLL/v1/tenants/$TENANT/key-versions`)
	say("# Another roll, while Key Vault loses its first answer; still one new version:")
	say(`curl -s $SIMULATORS/faults -d '{"service":"keyvault","operation":"create_key",`)
	say(`  "mode":"apply_and_lose","count":1}'`)
	say(`ANSWER=$(curl -si -H "Authorization: Bearer $RITA" -H "Idempotency-Key: $(date +%%s)" \`)
	say(`  -H "Content-Type: application/json" $KEYROLL/v1/rolls -d '{"policies":["spo"],`)
	say(`  "tenant_id":"'$TENANT'","reason":{"code":"other","text":"a try"}}')`)
	say("# ... approved by another person:")
	say(`ROLL=$(echo "$ANSWER" | grep -i ^location: | tr -d '\r' | cut -d/ -f4)`)
	say(`ETAG=$(echo "$ANSWER" | grep -i ^etag: | tr -d '\r' | cut -d' ' -f2)`)
	say(`HASH=$(echo "$ANSWER" | grep -o 'sha256:[0-9a-f]*' | head -n 1)`)
	say(`curl -s -H "Authorization: Bearer $ARNO" -H "If-Match: $ETAG" \`)
	say(`  -H "Content-Type: application/json" $KEYROLL/v1/rolls/$ROLL/approve \`)
	say(`  -d '{"plan_hash":"'$HASH'"}'`)
	say("# ... followed live (Ctrl-C ends it):")
	say(`curl -sN -H "Authorization: Bearer $RITA" -H "Accept: text/event-stream" $KEYROLL/v1/rolls/$ROLL/events`)
	say("# ... and how far it is:")
	say(`curl -s -H "Authorization: Bearer $RITA" $KEYROLL/v1/rolls/$ROLL | grep -o '"next_action":"[^"]*"'`)
	say("curl -s $SIMULATORS/witness | grep -A 3 versions_created")
}
