-- For wrk: sends the requests in the files that it is given, in turn, and prints what came of them as a line of JSON.
local requests, last = {}, 0

function init(args)
  for index = 1, #args do
    local file = assert(io.open(args[index], "rb"))
    requests[index] = file:read("*a")
    file:close()
  end
end

function request()
  last = last % #requests + 1
  return requests[last]
end

function done(summary, latency, _)
  local errors = summary.errors
  io.write(string.format(
    '{"answers": %d, "microseconds": %d, "not_2xx": %d, "connect": %d, "read": %d, "write": %d, "timeout": %d, ' ..
    '"median_us": %d, "p99_us": %d}\n',
    summary.requests, summary.duration, errors.status, errors.connect, errors.read, errors.write, errors.timeout,
    latency:percentile(50), latency:percentile(99)
  ))
end
