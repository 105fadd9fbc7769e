// Calls through @connectrpc/connect-node. Takes one JSON object of options; prints a JSON list with what came of each
// of its `calls`, made one after the other:
//   {url, ca, descriptors, protocol: "grpc" | "grpc-web", http: "1.1" | "2", gzip,
//    calls: [{service, method, messages: [JSON, ...], headers, timeout}]}
import { readFileSync } from "node:fs";
import { createFileRegistry, fromBinary, fromJson, toJson } from "@bufbuild/protobuf";
import { FileDescriptorSetSchema } from "@bufbuild/protobuf/wkt";
import { Code, ConnectError, createClient } from "@connectrpc/connect";
import { compressionGzip, createGrpcTransport, createGrpcWebTransport } from "@connectrpc/connect-node";

const options = JSON.parse(process.argv[2]);
const registry = createFileRegistry(fromBinary(FileDescriptorSetSchema, readFileSync(options.descriptors)));
const ca = options.ca ? readFileSync(options.ca) : undefined;
const make = options.protocol === "grpc" ? createGrpcTransport : createGrpcWebTransport;
const transport = make({
  baseUrl: options.url,
  httpVersion: options.http,
  nodeOptions: { ca },
  ...(options.gzip ? { sendCompression: compressionGzip, compressMinBytes: 0 } : {}),
});

async function outcome({ service, method, messages, headers, timeout }) {
  const found = { messages: [], code: "ok", error: "", headers: {}, trailers: {} };
  const described = registry.getService(service);
  const { localName, methodKind, input, output } = described.methods.find(({ name }) => name === method);
  const inputs = messages.map((message) => fromJson(input, message));
  const more = {
    headers,
    timeoutMs: timeout,
    onHeader: (all) => (found.headers = Object.fromEntries(all)),
    onTrailer: (all) => (found.trailers = Object.fromEntries(all)),
  };
  const read = (message) => found.messages.push(toJson(output, message, { registry, alwaysEmitImplicit: true }));
  const call = createClient(described, transport)[localName];
  try {
    if (methodKind === "server_streaming") {
      for await (const message of call(inputs[0], more)) read(message);
    } else if (methodKind === "client_streaming") {
      read(await call((async function* () { yield* inputs; })(), more));
    } else {
      read(await call(inputs[0], more));
    }
  } catch (error) {
    const failure = ConnectError.from(error);
    found.code = Code[failure.code];
    found.error = failure.rawMessage;
  }
  return found;
}

const outcomes = [];
for (const call of options.calls) outcomes.push(await outcome(call));
console.log(JSON.stringify(outcomes));
process.exit(0);
