// A Feathers API of events, in memory: node feathers.mjs EVENTS.json PORT
import { readFileSync } from "node:fs";
import { feathers } from "@feathersjs/feathers";
import { errorHandler, koa, parseAuthentication, rest } from "@feathersjs/koa";
import { memory } from "@feathersjs/memory";

const [file, port] = process.argv.slice(2);
const store = Object.fromEntries(JSON.parse(readFileSync(file)).map((one) => [one.id, one]));
const app = koa(feathers());
app.use(errorHandler());
app.configure(rest());
app.use("events", memory({ store, paginate: { default: 10, max: 100 } }));
app.listen(Number(port), "127.0.0.1");
