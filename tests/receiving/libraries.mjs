// What the libraries that people already use make of recorded deliveries: `libraries.mjs NAME FOLDER...` prints a verdict for each.

import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { argv, cwd } from "node:process";
import { pathToFileURL } from "node:url";

// From where they were installed, which is the folder this is started in.
const installed = createRequire(`${cwd()}/`);

/** How each of them is called: throws, or says false, where it does not verify. */
const BY_NAME = {
  standardwebhooks: (secret, body, headers) => new (installed("standardwebhooks").Webhook)(secret).verify(body, headers),
  svix: (secret, body, headers) => new (installed("svix").Webhook)(secret).verify(body, headers),
  stripe: (secret, body, headers) =>
    installed("stripe").webhooks.signature.verifyHeader(body, headers["stripe-signature"], secret, 300),
  octokit: async (secret, body, headers) => {
    const place = pathToFileURL(`${cwd()}/node_modules/@octokit/webhooks-methods/dist-node/index.js`);
    return (await import(place.href)).verify(secret, body.toString(), headers["x-hub-signature-256"]);
  },
};

async function genuine(folder) {
  const lines = (name) => readFileSync(`${folder}/${name}`, "utf8").split("\n").filter((line) => line !== "");
  const headers = Object.fromEntries(lines("headers").map((line) => {
    const end = line.indexOf(":");
    return [line.slice(0, end), line.slice(end + 1).trim()];
  }));
  Date.now = () => Number(lines("now")[0]) * 1000;
  const body = readFileSync(`${folder}/body`);
  for (const secret of lines("secrets")) {
    if (await passes(secret, body, headers)) return true;
  }
  return false;
}

async function passes(secret, body, headers) {
  try {
    return (await BY_NAME[argv[2]](secret, body, headers)) !== false;
  } catch {
    return false;
  }
}

for (const folder of argv.slice(3)) {
  console.log((await genuine(folder)) ? "valid" : "invalid");
}
