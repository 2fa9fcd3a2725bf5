-- Load for wrk: arguments are the path, the folder of bodies, their number, and headers as NAME=VALUE.
-- Prints one JSON line when done; times are in µs.
local requests, next_request = {}, 0

function init(args)
  local path, folder, count = args[1], args[2], tonumber(args[3])
  local headers = {}
  for i = 4, #args do
    local name, value = args[i]:match("^([^=]+)=(.*)$")
    headers[name] = value
  end
  for i = 0, count - 1 do
    local file = assert(io.open(folder .. "/" .. i, "rb"))
    requests[i] = wrk.format("POST", path, headers, file:read("*a"))
    file:close()
  end
end

function request()
  next_request = (next_request + 1) % (#requests + 1)
  return requests[next_request]
end

function done(summary, latency, counts)
  local errors = summary.errors
  io.write(string.format(
    '{"requests": %d, "seconds": %.6f, "p50": %.1f, "p99": %.1f, "max": %.1f, "failed": %d, "broken": %d}\n',
    summary.requests, summary.duration / 1e6, latency:percentile(50), latency:percentile(99), latency.max,
    errors.status, errors.connect + errors.read + errors.write + errors.timeout))
end
