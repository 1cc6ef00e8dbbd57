// The Node SDK: `npm install openai`, then `node smoke.mjs`.
import assert from "node:assert";
import { createReadStream } from "node:fs";
import { fileURLToPath } from "node:url";
import OpenAI from "openai";

const client = new OpenAI();
const rows = fileURLToPath(new URL("tickets.jsonl", import.meta.url));
const model = process.env.OPENAI_MODEL ?? "gpt-4.1-mini";
const wait = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

const file = await client.files.create({ file: createReadStream(rows), purpose: "fine-tune" });
let job = await client.fineTuning.jobs.create({
  model,
  training_file: file.id,
  suffix: "node",
  hyperparameters: { n_epochs: 1 },
});
while (!["succeeded", "failed", "cancelled"].includes(job.status)) {
  await wait(500);
  job = await client.fineTuning.jobs.retrieve(job.id);
}
assert.equal(job.status, "succeeded", JSON.stringify(job.error));

const events = [];
for await (const event of client.fineTuning.jobs.listEvents(job.id, { limit: 2 })) events.push(event.message);
assert(events.length > 3, "lists go on over pages");

const messages = [{ role: "user", content: "Where is my radio?" }];
const asked = { model: job.fine_tuned_model, messages, max_tokens: 8, temperature: 0 };
const whole = await client.chat.completions.create(asked);
let streamed = "";
for await (const piece of await client.chat.completions.create({ ...asked, stream: true })) {
  streamed += piece.choices[0]?.delta?.content ?? "";
}
assert.equal(streamed, whole.choices[0].message.content);
console.log(job.fine_tuned_model, JSON.stringify(streamed));
