// @ts-check
// Verifies webhooks that are signed as other senders sign. Take the function of your profile, with what it calls, or copy the file; it
// needs nothing but Node 16 or later. The usual signatures are in verify.mjs.
//
//     const problem = github(secrets, req.headers, body);    // undefined: the request is genuine; else a word that says why not
//
// `secrets`: an array, two during a rotation. `body`: the Buffer as it came. `now`: Unix seconds.
// Where no timestamp is signed (github, shopify, convoy_simple, prefixed), whoever saw a request can send it again for ever. And only
// standard_v1a, svix_legacy and hook0 sign an id in a header: with the others, recognise repetitions by an id in the body.

import { createHmac, createPublicKey, timingSafeEqual, verify } from "node:crypto";
import { existsSync, readFileSync, realpathSync } from "node:fs";
import { basename, dirname, resolve } from "node:path";
import { argv } from "node:process";
import { pathToFileURL } from "node:url";

/** @typedef {Record<string, string | string[] | undefined> | Iterable<[string, string]>} Received `req.headers`, or a `Headers` of fetch */
/** @typedef {(secrets: string[], headers: Received, body: Uint8Array, now?: number) => string | undefined} Verification */

/** Seconds between the sender's clock and yours, either way. */
const TOLERANCE = 300;

/** `stripe-signature: t=<seconds>,v1=<hex>[,v1=<hex>]` over `<seconds>.<body>`. @type {Verification} */
export const stripe = (secrets, headers, body, now) => timed(secrets, parts(header(headers, "stripe-signature")), ".", body, now);

/** `x-convoy-signature: t=<seconds>,v1=<hex>[,v1=<hex>]` over `<seconds>,<body>`. @type {Verification} */
export const convoy = (secrets, headers, body, now) => timed(secrets, parts(header(headers, "x-convoy-signature")), ",", body, now);

/** `x-convoy-signature: <hex>` over the body. @type {Verification} */
export const convoy_simple = (secrets, headers, body) => plain(secrets, header(headers, "x-convoy-signature"), body, "hex");

/** `x-hub-signature-256: sha256=<hex>` over the body. @type {Verification} */
export const github = (secrets, headers, body) => plain(secrets, after("sha256=", header(headers, "x-hub-signature-256")), body, "hex");

/** `<prefix>-Signature: sha256=<hex>` over the body; put the platform's own prefix here. @type {Verification} */
export const prefixed = (secrets, headers, body) => plain(secrets, after("sha256=", header(headers, "x-platform-signature")), body, "hex");

/** `x-shopify-hmac-sha256: <base64>` over the body. @type {Verification} */
export const shopify = (secrets, headers, body) => plain(secrets, header(headers, "x-shopify-hmac-sha256"), body, "base64");

/**
 * `x-hook0-signature: t=<seconds>,v0=<hex>,h=<names>,v1=<hex>`; v1 is over `<seconds>.<names>.<their values>.<body>`.
 *
 * Nothing in that tells where the id ends and the type begins, or where the type ends. So an id with a dot is nobody's, nor is a type
 * that holds more than letters, digits, `.`, `_` and `-`: else whoever saw a request could send it again under another id.
 *
 * @type {Verification}
 */
export function hook0(secrets, headers, body, now) {
  const offered = parts(header(headers, "x-hook0-signature"));
  const [id, type] = ["x-event-id", "x-event-type"].map((name) => header(headers, name));
  const problem = timed(secrets, offered, `.x-event-id x-event-type.${id}.${type}.`, body, now);
  return problem ?? (id.includes(".") || !/^[\w.-]+$/.test(type) ? "no_match" : undefined);
}

/**
 * As standard_v1, under the names svix-id, svix-timestamp and svix-signature. The key is what the part after `whsec_` is the base64 of.
 *
 * @type {Verification}
 */
export function svix_legacy(secrets, headers, body, now) {
  const keys = secrets.map((secret) => Buffer.from(after("whsec_", secret), "base64"));
  if (keys.some((key) => key.length < 24)) throw new Error("a signing secret is whsec_ and the base64 of 24 bytes or more");
  return listed("svix-", "v1,", headers, body, now, (content, offered) =>
    keys.some((key) => equal(createHmac("sha256", key).update(content).digest("base64"), offered)));
}

/**
 * Ed25519 over what standard_v1 signs; `whpk_` and base64 is the public key. The receiver holds nothing that could sign.
 *
 * @type {Verification}
 */
export function standard_v1a(publicKeys, headers, body, now) {
  const keys = publicKeys.map((key) => {
    const x = Buffer.from(after("whpk_", key), "base64").toString("base64url");
    return createPublicKey({ key: { kty: "OKP", crv: "Ed25519", x }, format: "jwk" });
  });
  return listed("webhook-", "v1a,", headers, body, now, (content, offered) =>
    keys.some((key) => verify(null, content, key, Buffer.from(offered, "base64"))));
}

/**
 * @param {string[]} secrets
 * @param {string} offered
 * @param {Uint8Array} body
 * @param {"hex" | "base64"} written
 */
function plain(secrets, offered, body, written) {
  if (offered === "") return "no_signature";
  return matches(secrets, [body], offered, written) ? undefined : "no_match";
}

/**
 * @param {string[]} secrets
 * @param {string[][]} offered
 * @param {string} between
 * @param {Uint8Array} body
 * @param {number} [now]
 */
function timed(secrets, offered, between, body, now) {
  const timestamp = value(offered, "t");
  const tags = offered.filter(([name]) => name === "v1").map(([, tag]) => tag);
  if (tags.length === 0) return "no_signature";
  const problem = outOfTime(timestamp, now);
  if (problem !== undefined) return problem;
  const content = [timestamp + between, body];
  return tags.some((tag) => matches(secrets, content, tag, "hex")) ? undefined : "no_match";
}

/**
 * @param {string} names
 * @param {string} version
 * @param {Received} headers
 * @param {Uint8Array} body
 * @param {number | undefined} now
 * @param {(content: Uint8Array, offered: string) => boolean} isBy
 */
function listed(names, version, headers, body, now, isBy) {
  const [id, timestamp, list] = ["id", "timestamp", "signature"].map((name) => header(headers, names + name));
  const offered = list.split(" ").filter((entry) => entry.startsWith(version)).map((entry) => entry.slice(version.length));
  if (id === "") return "missing_id";
  const problem = outOfTime(timestamp, now);
  if (problem !== undefined) return problem;
  if (offered.length === 0) return "no_signature";
  const content = Buffer.concat([Buffer.from(`${id}.${timestamp}.`), body]);
  return offered.some((signature) => isBy(content, signature)) ? undefined : "no_match";
}

/**
 * The key is the secret's letters, all of them, `whsec_` included. Under none of them anybody could sign.
 *
 * @param {string[]} secrets
 * @param {(string | Uint8Array)[]} content
 * @param {string} offered
 * @param {"hex" | "base64"} written
 */
function matches(secrets, content, offered, written) {
  if (secrets.includes("")) throw new Error("a secret is empty");
  return secrets.some((secret) => {
    const mac = createHmac("sha256", secret);
    for (const part of content) mac.update(part);
    return equal(mac.digest(written), offered);
  });
}

/**
 * Takes the same time wherever the difference lies.
 *
 * @param {string} expected
 * @param {string} offered
 */
function equal(expected, offered) {
  const [left, right] = [Buffer.from(expected), Buffer.from(offered)];
  return left.length === right.length && timingSafeEqual(left, right);
}

/**
 * @param {string} timestamp
 * @param {number} [now]
 */
function outOfTime(timestamp, now = Date.now() / 1000) {
  if (timestamp === "") return "missing_timestamp";
  if (!/^[0-9]{1,18}$/.test(timestamp)) return "malformed_timestamp";
  const age = now - Number(timestamp);
  if (Math.abs(age) <= TOLERANCE) return undefined;
  return age > 0 ? "too_old" : "too_new";
}

/**
 * @param {Received} headers
 * @param {string} wanted
 */
function header(headers, wanted) {
  const all = Symbol.iterator in headers ? Array.from(headers) : Object.entries(headers);
  const found = all.find(([name]) => name.toLowerCase() === wanted);
  return String(found?.[1] ?? "");
}

/** @param {string} list */
function parts(list) {
  return list.split(",").map((part) => {
    const end = part.indexOf("=");
    return [part.slice(0, end).trim(), part.slice(end + 1)];
  });
}

/**
 * @param {string[][]} offered
 * @param {string} wanted
 */
function value(offered, wanted) {
  return offered.find(([name]) => name === wanted)?.[1] ?? "";
}

/**
 * @param {string} start
 * @param {string} text
 */
function after(start, text) {
  return text.startsWith(start) ? text.slice(start.length) : "";
}

/** @type {Record<string, Verification>} */
const PROFILES = { stripe, convoy, convoy_simple, github, prefixed, shopify, hook0, svix_legacy, standard_v1a };

/**
 * Verifies a recorded delivery: a folder with the files headers, body, secrets and now, in one that is called as its profile is.
 *
 * @param {string} folder
 */
function check(folder) {
  /** @param {string} name */
  const lines = (name) => readFileSync(`${folder}/${name}`, "utf8").split("\n").filter((line) => line !== "");
  const headers = Object.fromEntries(lines("headers").map((line) => {
    const end = line.indexOf(":");
    return [line.slice(0, end), line.slice(end + 1).trim()];
  }));
  const profile = PROFILES[basename(dirname(resolve(folder)))];
  return profile(lines("secrets"), headers, readFileSync(`${folder}/body`), Number(lines("now")[0]));
}

if (existsSync(argv[1] ?? "") && import.meta.url === pathToFileURL(realpathSync(argv[1])).href) {
  for (const folder of argv.slice(2)) {
    const problem = check(folder);
    console.log(problem === undefined ? "valid" : `invalid: ${problem}`);
  }
}
