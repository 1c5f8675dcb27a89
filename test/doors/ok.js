// ok.js - lines for test/t/063_gateway_clients.pl.
export function ok(passed, name, what) {
  console.log((passed ? "ok " : "not ok ") + name);
  if (!passed && what !== undefined) console.log("# " + JSON.stringify(what));
}

// Nothing that a library left open keeps the process.
export function done() {
  process.exit(0);
}
