// Package sim is Microsoft 365 Customer Key in one process: Entra, Azure Key
// Vault, Exchange Online's InvokeCommand, SharePoint Online's ProcessQuery and
// what a roll needs of Azure Resource Manager, as HTTP handlers with state, faults and a witness log. It is for demos,
// development, tests, and for people who write clients of such services.
//
// It imports the standard library only, and nothing of the connectors, so that
// it cannot share a misreading of the wire formats with them. Where Microsoft
// documents nothing (the names of some exceptions, the value to which a
// mailbox's DataEncryptionPolicyID changes) it makes something up; a client
// that depends on it is wrong.
//
// # Use
//
//	seed := sim.ContosoSeed()
//	cert, key, err := sim.NewAppCertificate("my client")
//	seed.AllowCertificate(sim.ContosoClientID, cert)
//	srv, err := sim.Start(ctx, sim.Options{Seed: seed})
//	defer srv.Close()
//	// dial srv.Addr for every host of srv.DialMap(), trust srv.CAPEM(), and
//	// use the real URLs: https://contoso-exo-a.vault.azure.net and so on.
//
// One TLS listener is all hosts, told apart by Host. Everything that can be
// done over the control API is also a method of World.
//
// # Time
//
// Rolls, mailboxes and rotation policies live in the world's clock: real time,
// plus what Advance added. Nothing runs in the background; the state of a
// moment is computed when somebody looks. Tokens, and the limit on creating
// keys, live in real time.
//
// # Control API
//
// JSON over plain HTTP on a loopback address. Unknown members are refused;
// errors are {"error": "…"}; acts without a result answer 204.
//
//	GET    /healthz
//	GET    /state                       the world: keys and versions, what each policy has taken up, geos
//	GET    /witness                     effects, violations, request counts, overlaps
//	POST   /faults                      {"service":"keyvault","operation":"create_key","mode":"apply_and_lose","count":1} → 201, the fault
//	GET    /faults
//	GET    /faults/{id}?wait=10s&fired=1  408 when it did not fire in time
//	POST   /faults/{id}/release         for hold and hold_after
//	DELETE /faults/{id}
//	POST   /keys/stranger               {"vault":"contoso-exo-a","key":"Contoso-EXO-A-Key001","tags":{}} → 201 {"version":"…"}
//	POST   /keys/disable                {"vault":"…","key":"…","version":"","enabled":false}
//	POST   /keys/soft-delete            {"vault":"…","key":"…","deleted":true,"deleting":false}
//	POST   /keys/rotation-policy        {"vault":"…","key":"…","policy":{"expiry_time":"P2Y","actions":[…]}}
//	POST   /sharepoint/roll-by-hand     {"tenant":"contoso.com","geo":"NAM","slot":"primary","vault":"","key":"","version":""}
//	POST   /sharepoint/settings         {"tenant":"contoso.com","status":"Recovering","sites_per_second":10,"site_count":1000,"uri_version":false,"uri_change":"start","uri_form":"upper_case","progress_form":"absent","rolls_per":"tenant","secret_token_status":403}
//	POST   /exchange/settings           {"tenant":"contoso.com","redirect_host":"eurprd01.prod.outlook.com","nul_body_gzip":true,"no_test_cmdlet":true,"assignment_by_name":true,"warnings_in_header":true,"rate_limit":30000,"refresh_seconds":2}
//	POST   /permissions                 {"tenant":"contoso.com","keyvault":{"contoso-exo-a":false},"exchange":"app_role","sharepoint":false,"arm":"reader","service":{"*":false}}
//	POST   /logs                        {"tenant":"contoso.com","logs":{"workspace_id":"…","delay_seconds":600,"denied":false}}
//	POST   /logs/line                   {"tenant":"contoso.com","line":{"operation":"KeyWrap","app_id":"…","key":"https://…/keys/…/…"}}
//	POST   /policies                    {"tenant":"contoso.com","policy":{…as in a seed…}}: by GUID, added or replaced
//	POST   /apps                        {"client_id":"…","certificate":"-----BEGIN CERTIFICATE…"}
//	POST   /federated-token             {"client_id":"…","subject":""} → 201 {"token":"…"}: what a workload's token file would hold
//	GET    /metadata/identity/oauth2/token and /msi/token: the managed identity endpoint, as a virtual machine and as App Service have it
//	POST   /automation/resume           {"tenant":"contoso.com","job":"…guid…"}: a suspended job; /automation/stop ends one
//	POST   /tokens/revoke               {"tenant":"contoso.com","client_id":""}: every token issued until now is refused
//	POST   /trap                        {"on":true}
//	POST   /advance                     {"seconds":3600}
//
// # Faults
//
// A Fault names a service, an operation ("effect": any that changes
// something), a tenant, vault, key or target, and a mode. A held or delayed
// request goes on even if its client has hung up: that is how a call lands
// late at Microsoft too.
//
// # Scenarios
//
// A Scenario is a world with its faults and with acts at their times: the file
// format of "server sim --scenario". ReadScenario reads one and says at which
// line and column it is wrong; Scenarios are those that come with the package.
// docs/simulator.md is the manual; its tables are made of the comments here.
//
// # Witness
//
// The log has each attempt of an effect, whether it was applied, whether it
// was answered, and by whom it was: "api", "hand", "stranger" or "policy". A request that
// would delete, disable, re-date, restore or purge is refused and recorded as a
// violation. In trap mode SharePoint accepts a roll while another runs, so
// that Overlaps shows what a real tenant would have refused or suffered.
package sim
