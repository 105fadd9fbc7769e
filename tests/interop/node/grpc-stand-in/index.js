// Stands in for the native package `grpc`, which no longer builds: all of @grpc/grpc-js, which binds only by callback,
// and the synchronous `Server.bind` that the Cloudstate library calls. The version in package.json is one that the
// library accepts, so npm gives it this package and the library stays as it is.
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
