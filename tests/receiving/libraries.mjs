// What the libraries that people already use make of recorded deliveries: `libraries.mjs NAME FOLDER...` prints a verdict for each.

import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { argv, cwd } from "node:process";

// From where they were installed, which is the folder this is started in.
const { Webhook } = createRequire(`${cwd()}/`)(argv[2]);

function genuine(folder) {
  const lines = (name) => readFileSync(`${folder}/${name}`, "utf8").split("\n").filter((line) => line !== "");
  const headers = Object.fromEntries(lines("headers").map((line) => {
    const end = line.indexOf(":");
    return [line.slice(0, end), line.slice(end + 1).trim()];
  }));
  Date.now = () => Number(lines("now")[0]) * 1000;
  const body = readFileSync(`${folder}/body`);
  return lines("secrets").some((secret) => passes(secret, body, headers));
}

function passes(secret, body, headers) {
  try {
    new Webhook(secret).verify(body, headers);
    return true;
  } catch {
    return false;
  }
}

for (const folder of argv.slice(3)) {
  console.log(genuine(folder) ? "valid" : "invalid");
}
