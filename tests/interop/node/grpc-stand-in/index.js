// Stands in for the native `grpc` package, which no longer builds: everything is @grpc/grpc-js. That one lacks the
// synchronous `Server.bind` that the Cloudstate library calls, and binds only by callback.
"use strict";
const grpc = require("@grpc/grpc-js");

class Server extends grpc.Server {
  bind(address, credentials) {
    this.bindAsync(address, credentials, (error, port) => {
      if (error) throw error;
      console.log("listening on port " + port);
    });
    return Number(address.split(":").pop());
  }
  start() {}
}

module.exports = { ...grpc, Server };
