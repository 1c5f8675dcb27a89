// openai.js URL - the client of OpenAI: streams, tools, schemas, errors.
import OpenAI from "openai";
import {ok, done} from "./ok.js";

const [url] = process.argv.slice(2);
const client = new OpenAI({baseURL: url + "/v1", apiKey: "al:secret", maxRetries: 0});
const ask = (content, keys) => client.chat.completions.create({model: "m1-nano", messages: [{role: "user", content}], ...keys});
const tools = [{type: "function", function: {name: "get_weather", description: "Current weather of a city",
  parameters: {type: "object", properties: {city: {type: "string"}}, required: ["city"]}}}];

const whole = await ask("What is 47 + 35?");
ok(whole.choices[0].message.content === "82", "a chat", whole);
ok(/7 \+ 5/.test(whole.choices[0].message.reasoning_content), "its reasoning");

let content = "", usage = null, pieces = 0;
for await (const chunk of await ask("What is 47 + 35?", {stream: true, stream_options: {include_usage: true}})) {
  content += chunk.choices[0]?.delta.content ?? "";
  usage = chunk.usage ?? usage;
  pieces++;
}
ok(content === "82" && pieces > 10, "a stream");
ok(usage?.completion_tokens === 46, "its usage", usage);

const calling = client.chat.completions.stream({model: "m1-nano", tools, messages: [{role: "user", content: "What is the weather in Oslo?"}]});
const written = [];
calling.on("tool_calls.function.arguments.delta", e => written.push(e.arguments_delta));
const called = await calling.finalChatCompletion();
ok(written.length > 2 && JSON.parse(written.join("")).city === "Oslo", "arguments while they are written", written);
ok(called.choices[0].message.tool_calls[0].function.arguments.includes("Oslo"), "a tool, out of a stream", called);
ok(called.choices[0].finish_reason === "tool_calls", "and why it ended");

const schema = {type: "object", properties: {open: {type: "boolean"}}, required: ["open"], additionalProperties: false};
const json = await ask("Is the office open on Sunday?", {response_format: {type: "json_schema", json_schema: {name: "hours", strict: true, schema}}});
ok(typeof JSON.parse(json.choices[0].message.content).open === "boolean", "a schema");

const failure = async (name, code, promise) => {
  const error = await promise.catch(e => e);
  ok(error.status === code[0] && error.code === code[1], name, {status: error.status, code: error.code, message: error.message});
};
await failure("a value out of range", [400, "invalid_value"], ask("x", {max_tokens: -1}));
await failure("another model", [404, "model_not_found"], ask("x", {model: "gpt-4o"}));
await failure("a prompt that does not fit", [400, "context_length_exceeded"], ask("word ".repeat(40000)));
await failure("a wrong key", [401, "invalid_api_key"], new OpenAI({baseURL: url + "/v1", apiKey: "al:no", maxRetries: 0}).models.list());

const models = [];
for await (const model of client.models.list()) models.push(model.id);
ok(models.join() === "m1-nano", "the models", models);

const stream = await ask("What can you do?", {stream: true, temperature: 2, top_p: 1, max_tokens: 20000});
let n = 0;
for await (const chunk of stream) if (++n === 5) break;
ok(n === 5, "a stream that is left");
done();
