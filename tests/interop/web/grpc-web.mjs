// Calls through grpc-web, the client of browsers, on an XMLHttpRequest for Node. Takes one JSON object of options;
// prints a JSON list with what came of each of its `calls`, made one after the other:
//   {url, descriptors, format: "text" | "binary", calls: [{service, method, messages: [JSON], headers}]}
import { createRequire } from "node:module";
import { readFileSync } from "node:fs";
import { createFileRegistry, fromBinary, fromJson, toBinary, toJson } from "@bufbuild/protobuf";
import { FileDescriptorSetSchema } from "@bufbuild/protobuf/wkt";

const require = createRequire(import.meta.url);
globalThis.XMLHttpRequest = require("xhr2");
const { GrpcWebClientBase, MethodDescriptor, MethodType } = require("grpc-web");

const options = JSON.parse(process.argv[2]);
const registry = createFileRegistry(fromBinary(FileDescriptorSetSchema, readFileSync(options.descriptors)));
const client = new GrpcWebClientBase({ format: options.format });

function outcome({ service, method, messages, headers }) {
  const { input, output, methodKind } = registry.getService(service).methods.find(({ name }) => name === method);
  const streams = methodKind === "server_streaming";
  const path = `/${service}/${method}`;
  const descriptor = new MethodDescriptor(
    path,
    streams ? MethodType.SERVER_STREAMING : MethodType.UNARY,
    Object,
    Object,
    (message) => toBinary(input, message),
    (bytes) => fromBinary(output, bytes),
  );
  const found = { messages: [], code: 0, error: "", headers: {} };
  const read = (message) => found.messages.push(toJson(output, message, { registry, alwaysEmitImplicit: true }));
  const request = fromJson(input, messages[0]);
  return new Promise((resolve) => {
    const fail = (error) => {
      found.code = error.code;
      found.error = error.message;
      resolve(found);
    };
    if (streams) {
      const stream = client.serverStreaming(options.url + path, request, headers ?? {}, descriptor);
      stream.on("data", read);
      stream.on("error", fail);
      stream.on("end", () => resolve(found));
    } else {
      const call = client.rpcCall(options.url + path, request, headers ?? {}, descriptor, (error, message) => {
        if (error) return fail(error);
        read(message);
        resolve(found);
      });
      call.on("metadata", (all) => (found.headers = all));
    }
  });
}

const outcomes = [];
for (const call of options.calls) outcomes.push(await outcome(call));
console.log(JSON.stringify(outcomes));
process.exit(0);
