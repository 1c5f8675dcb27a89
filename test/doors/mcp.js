// mcp.js URL GATEWAY CONNINFO - @modelcontextprotocol/client in both eras, on a pipe and over HTTP.
import {Client, StreamableHTTPClientTransport} from "@modelcontextprotocol/client";
import {StdioClientTransport} from "@modelcontextprotocol/client/stdio";
import {ok, done} from "./ok.js";

const [url, gateway, conninfo] = process.argv.slice(2);

const transports = {
  stdio: () => new StdioClientTransport({command: gateway, args: ["mcp", conninfo], env: process.env}),
  http: () => new StreamableHTTPClientTransport(new URL(url + "/mcp"), {
    requestInit: {headers: {Authorization: "Bearer al:secret"}}}),
};

for (const [where, transport] of Object.entries(transports))
  for (const mode of ["legacy", "auto"]) {
    const name = `${mode} over ${where}`;
    const client = new Client({name: "test", version: "1"}, {versionNegotiation: {mode}});
    await client.connect(transport());
    const {tools} = await client.listTools();
    ok(tools.length === 8 && tools[0].name === "generate", `${name}: the tools are listed`);
    const sum = await client.callTool({name: "generate", arguments: {prompt: "What is 47 + 35?"}});
    ok(sum.content[0].text === "82", `${name}: a tool is called`);
    const wrong = await client.callTool({name: "generate", arguments: {prompt: ""}});
    ok(wrong.isError === true && /DETAIL/.test(wrong.content[0].text), `${name}: an error has its detail`);
    const model = await client.readResource({uri: "minimax-m1://model"});
    ok(/m1-nano/.test(model.contents[0].text), `${name}: a resource is read`);
    let progress = 0;
    const stop = new AbortController();
    await client.callTool({name: "generate", arguments: {prompt: "What can you do? ".repeat(3000), temperature: 100, thinking_budget: 20000, max_tokens: 8000}},
      {signal: stop.signal, onprogress: p => { progress = p.progress; stop.abort(); }, timeout: 30000}).catch(() => null);
    ok(progress > 0, `${name}: progress is told, and the call is cancelled`);
    await client.close();
  }
done();
