// Rate limiters from npm in front of another server: node node.mjs KIND LIMIT WINDOW_S UPSTREAM
// Prints "listening on PORT". Ends when its standard input does.
import http from "node:http";
import express from "express";
import Fastify from "fastify";
import fastifyRateLimit from "@fastify/rate-limit";
import { rateLimit } from "express-rate-limit";
import { RateLimiterMemory } from "rate-limiter-flexible";

const [kind, limitText, windowText, upstream] = process.argv.slice(2);
const limit = Number(limitText), windowMs = Number(windowText) * 1000;
const { hostname, port } = new URL(upstream);
const agent = new http.Agent({ keepAlive: true });
process.stdin.resume().on("end", () => process.exit(0));

function forward(request, reply) {
  const options = { hostname, port, path: request.url, headers: request.headers, agent };
  http.get(options, (answer) => {
    reply.writeHead(answer.statusCode, answer.headers);
    answer.pipe(reply);
  }).on("error", () => reply.destroy());
}

function withExpress(...middlewares) {
  const app = express();
  app.set("etag", false);
  app.use(...middlewares);
  app.use(forward);
  return app.listen(0, "127.0.0.1", say);
}

function say() {
  console.log(`listening on ${this.address().port}`);
}

const headers = (legacyHeaders, standardHeaders) =>
  rateLimit({ windowMs, limit, legacyHeaders, standardHeaders });
const flexible = (options) => {
  const limiter = new RateLimiterMemory({ points: limit, duration: windowMs / 1000, ...options });
  return async (request, reply, next) => {
    const fields = (state) => reply.set({
      "X-RateLimit-Limit": limit,
      "X-RateLimit-Remaining": state.remainingPoints,
      "X-RateLimit-Reset": Math.ceil((Date.now() + state.msBeforeNext) / 1000),
    });
    try {
      fields(await limiter.consume("all"));
      next();
    } catch (state) {
      reply.set("Retry-After", Math.ceil(state.msBeforeNext / 1000)).status(429).end();
    }
  };
};

const kinds = {
  "express-legacy": () => withExpress(headers(true, false)),
  "express-draft-6": () => withExpress(headers(false, "draft-6")),
  "express-draft-7": () => withExpress(headers(false, "draft-7")),
  "express-draft-8": () => withExpress(headers(false, "draft-8")),
  "express-none": () => withExpress(headers(false, false)),
  "express-two": () => withExpress(
    headers(true, "draft-6"),
    rateLimit({ windowMs: 4 * windowMs, limit: 3 * limit, standardHeaders: "draft-6" })),
  flexible: () => withExpress(flexible({})),
  "flexible-block": () => withExpress(flexible({ blockDuration: 2 * windowMs / 1000 })),
  fastify: async () => {
    const app = Fastify();
    await app.register(fastifyRateLimit, { max: limit, timeWindow: windowMs });
    app.all("/*", (request, reply) => { reply.hijack(); forwardFastify(request, reply); });
    await app.listen({ port: 0, host: "127.0.0.1" });
    console.log(`listening on ${app.server.address().port}`);
  },
};

function forwardFastify(request, reply) {
  const fields = reply.getHeaders();
  const options = { hostname, port, path: request.raw.url, headers: request.headers, agent };
  http.get(options, (answer) => {
    reply.raw.writeHead(answer.statusCode, { ...answer.headers, ...fields });
    answer.pipe(reply.raw);
  }).on("error", () => reply.raw.destroy());
}

await kinds[kind]();
