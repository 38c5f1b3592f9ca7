-- Posts call-backs, each with a flowInstanceId of its own, and prints what came of them as one line of JSON.
-- The ids begin at random, as engines' UUIDs do: so they fall all over the index of a large database.
-- Arguments: prefix of the ids, value of the Prefer header or "", how many classes to spread over,
-- "count" to count answers by status (which costs wrk a parse of every answer) or "",
-- what stands before and after the id in the path, the size of a body in bytes, which more variables reach, a bearer
-- token or "", and "values" for bodies with an amount and a vendor that differ, or "". If nothing stands after the id,
-- the path is a fixed URL: the id is in the body, beside a status.

local threads = {}
local VALUES = '"amount":%d,"vendor":"V-%06d",'

function setup(thread)
  thread:set("number", #threads)
  table.insert(threads, thread)
end

function init(args)
  local first = #args - 8
  local prefer, classes, counting = args[first + 1], tonumber(args[first + 2]), args[first + 3] == "count"
  local before, after, size = args[first + 4], args[first + 5], tonumber(args[first + 6])
  local token, fixed, values = args[first + 7], after == "", args[first + 8] == "values"
  local middle = "-" .. args[first] .. "-" .. number .. "-"
  local fields = " HTTP/1.1\r\nHost: " .. wrk.headers["Host"] .. "\r\nContent-Type: application/json\r\n"
    .. (token == "" and "" or "Authorization: Bearer " .. token .. "\r\n")
    .. (prefer == "" and "" or "Prefer: " .. prefer .. "\r\n") .. "Content-Length: "
  local tails = {}
  for class = 0, classes - 1 do
    local name = "com.cnooc.test.CallbackHandler" .. (class == 0 and "" or class)
    local body = '{"businessKey":"HT-2026-0042","callBackProcessClass":"' .. name .. '",'
      .. '"processDefinitionId":"contract_approval:3:8f14e45f-ceea-467f-a8d3-1d2b5c0e7a11",'
      .. '"processDefinitionKey":"contract_approval","processDefinitionVersion":3'
    local variable = '{"name":"remark","type":"string","value":"0123456789"}'
    local more = math.floor((size - #body - #',"variables":[]}' + 1) / (#variable + 1))
    body = body .. (more > 0 and ',"variables":[' .. variable .. ("," .. variable):rep(more - 1) .. "]}" or "}")
    if values then
      -- All values have the same length, so that only they are made for each request.
      local length = #body + #VALUES:format(1000000, 0)
      tails[class] = after .. fields .. length .. "\r\n\r\n{" .. VALUES .. body:sub(2)
    else
      tails[class] = fixed and body:sub(2) or after .. fields .. #body .. "\r\n\r\n" .. body
    end
  end
  local sent, random = 0, math.random
  math.randomseed(tonumber(args[first]:sub(1, 7), 16))
  request = function()
    sent = sent + 1
    local id, tail = string.format("%08x", random(0, 2147483647)) .. middle .. sent, tails[sent % classes]
    if fixed then
      local body = '{"id":"' .. id .. '","status":2,' .. tail
      return "POST " .. before .. fields .. #body .. "\r\n\r\n" .. body
    end
    if values then
      tail = tail:format(random(1000000, 9999999), random(0, 999999))
    end
    return "POST " .. before .. id .. tail
  end
  ok, accepted, other = 0, 0, 0
  if counting then
    response = function(status)
      if status == 200 then
        ok = ok + 1
      elseif status == 202 then
        accepted = accepted + 1
      else
        other = other + 1
      end
    end
  end
end

function done(summary, latency, requests)
  local ok_sum, accepted_sum, other_sum = 0, 0, 0
  for _, thread in ipairs(threads) do
    ok_sum = ok_sum + thread:get("ok")
    accepted_sum = accepted_sum + thread:get("accepted")
    other_sum = other_sum + thread:get("other")
  end
  local errors = summary.errors
  io.write(string.format(
    '\nRESULT {"requests":%d,"microseconds":%d,"p50":%d,"p99":%d,"refused":%d,"broken":%d,'
      .. '"ok":%d,"accepted":%d,"other":%d}\n',
    summary.requests, summary.duration, latency:percentile(50), latency:percentile(99), errors.status,
    errors.connect + errors.read + errors.write + errors.timeout, ok_sum, accepted_sum, other_sum))
end
