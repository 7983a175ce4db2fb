// Drives the simulator of Key Vault with Microsoft's own client: create, a new
// version with tags, list, get, and the challenge that comes before all of it.
// Settings come from the environment; what was seen goes to stdout as one JSON
// document. The vault is called by its real URL; only the connection goes to
// the simulator, whose authority is the only one trusted.
import { KeyClient } from "@azure/keyvault-keys";
import { readFileSync } from "node:fs";
import https from "node:https";
import tls from "node:tls";

const { SIM_ADDRESS, SIM_CA, SIM_CLIENT_ID, SIM_SECRET, SIM_VAULT, SIM_KEY } = process.env;
const cut = SIM_ADDRESS.lastIndexOf(":");
const address = { host: SIM_ADDRESS.slice(0, cut), port: Number(SIM_ADDRESS.slice(cut + 1)) };
const ca = readFileSync(SIM_CA);

const agent = new https.Agent({ keepAlive: true });
agent.createConnection = (options) =>
  tls.connect({ ...address, servername: options.servername ?? options.host, ca, ALPNProtocols: ["http/1.1"] });

// A client secret is enough for Key Vault. The authority and the tenant are
// those that the vault's challenge named.
const challenges = [];
const credential = {
  async getToken(scopes, options) {
    challenges.push({ scopes: [scopes].flat(), tenantId: options.tenantId });
    const form = new URLSearchParams({
      grant_type: "client_credentials",
      client_id: SIM_CLIENT_ID,
      client_secret: SIM_SECRET,
      scope: [scopes].flat().join(" "),
    });
    const answer = await post(`https://login.microsoftonline.com/${options.tenantId}/oauth2/v2.0/token`, form.toString());
    if (!answer.access_token) throw new Error(`no token: ${JSON.stringify(answer)}`);
    return { token: answer.access_token, expiresOnTimestamp: Date.now() + answer.expires_in * 1000 };
  },
};

function post(url, body) {
  return new Promise((resolve, reject) => {
    const request = https.request(url, { method: "POST", agent, headers: { "Content-Type": "application/x-www-form-urlencoded" } }, (response) => {
      const parts = [];
      response.on("data", (part) => parts.push(part));
      response.on("end", () => resolve(JSON.parse(Buffer.concat(parts).toString())));
      response.on("error", reject);
    });
    request.on("error", reject);
    request.end(body);
  });
}

const connect = {
  name: "connectToTheSimulator",
  sendRequest(request, next) {
    request.agent = agent;
    return next(request);
  },
};

const client = new KeyClient(SIM_VAULT, credential, {
  retryOptions: { maxRetries: 0 },
  additionalPolicies: [{ policy: connect, position: "perCall" }],
});

const shape = { keySize: 3072, keyOps: ["wrapKey", "unwrapKey"], hsm: true };
const created = await client.createRsaKey("made-by-javascript", shape);
const renewed = await client.createRsaKey(SIM_KEY, { ...shape, tags: { "keyroll-op": "js-1", owner: "javascript" } });
const versions = [];
for await (const v of client.listPropertiesOfKeyVersions(SIM_KEY)) {
  versions.push({ version: v.version, enabled: v.enabled, tags: v.tags ?? {}, hsmPlatform: v.hsmPlatform });
}
const latest = await client.getKey(SIM_KEY);
const first = await client.getKey(SIM_KEY, { version: versions[0].version });
let missing;
try {
  await client.getKey("nobody-made-this");
} catch (error) {
  missing = { status: error.statusCode, code: error.code };
}

console.log(
  JSON.stringify({
    challenges,
    created: { id: created.id, type: created.keyType, bits: created.key.n.length * 8 },
    renewed: { id: renewed.id, version: renewed.properties.version, tags: renewed.properties.tags, recoveryLevel: renewed.properties.recoveryLevel },
    versions,
    latest: latest.properties.version,
    first: first.properties.version,
    missing,
  }),
);
agent.destroy();
