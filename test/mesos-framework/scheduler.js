"use strict";

// A scheduler on the public package mesos-framework, which is used as it is. It
// runs command tasks, says on stdout what it is told, and tears itself down when
// all have finished:
//
//   node scheduler.js HOST:PORT TASKS COMMAND [FRAMEWORK-ID]
//
// With a framework id it takes over what another has launched.

const os = require("os");
const { Scheduler, Mesos } = require("mesos-framework");

const mesos = Mesos.getMesos();
const [address, count, command, frameworkId] = process.argv.slice(2);
const [host, port] = address.split(":");
const finished = new Set();

const tasks = frameworkId ? {} : {
  sleeper: {
    priority: 1,
    instances: Number(count),
    commandInfo: new mesos.CommandInfo(null, null, true, command, null, null),
    resources: { cpus: 0.1, mem: 32, ports: 1, disk: 0 },
  },
};

const scheduler = new Scheduler({
  masterUrl: host,
  port: Number(port),
  frameworkName: "npm",
  user: os.userInfo().username,
  exponentialBackoffMinimum: 0.2,
  exponentialBackoffMaximum: 1,
  logging: { path: process.cwd(), fileName: "framework.log", level: "error" },
  tasks,
});
if (frameworkId) {
  scheduler.frameworkId = frameworkId;
}

// The package subscribes again when its stream ends. When the connection breaks,
// or there is nobody at the other end, that is left to its user.
const subscribe = scheduler.subscribe;
scheduler.subscribe = function () {
  subscribe.call(scheduler);
  const request = scheduler.httpRequest;
  request.on("close", () => setTimeout(() => {
    if (scheduler.httpRequest === request) {
      delete scheduler.requestTemplate.headers["mesos-stream-id"];
      scheduler.mesosStreamId = undefined;
      scheduler.subscribe();
    }
  }, 300));
};

scheduler.on("ready", () => scheduler.subscribe());
scheduler.on("subscribed", ({ frameworkId: id, mesosStreamId }) => console.log("subscribed", id, mesosStreamId));
scheduler.on("error", (error) => console.log("error", error.message || error));
scheduler.on("update", ({ status }) => {
  console.log(status.state, status.task_id.value, status.reason || "");
  if (status.state === "TASK_FINISHED") {
    finished.add(status.task_id.value);
  }
  if (finished.size === Number(count)) {
    // The acknowledgement, which the package has just sent, goes first.
    setTimeout(() => scheduler.teardown(), 100);
  }
});
scheduler.on("sent_teardown", () => {
  console.log("done");
  process.exit(0);
});
