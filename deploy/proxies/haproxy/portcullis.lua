local portcullis = "http://127.0.0.1:9192/"
local timeout_ms = 1000

-- Headers about the connection between client and HAProxy.
local hop = {
  ["connection"] = true, ["content-length"] = true, ["expect"] = true, ["keep-alive"] = true,
  ["proxy-connection"] = true, ["te"] = true, ["trailer"] = true, ["transfer-encoding"] = true, ["upgrade"] = true,
}

-- Asks about the request with the headers that it has by now; leaves the status in txn.portcullis.
core.register_action("portcullis", { "http-req" }, function(txn)
  txn:set_var("txn.portcullis", "error")
  local headers = {}
  for name, values in pairs(txn.http:req_get_headers()) do
    if not hop[name] then
      local list = {}
      -- HAProxy counts them from zero.
      for i = 0, #values do
        if values[i] ~= nil then list[#list + 1] = values[i] end
      end
      headers[name] = list
    end
  end
  local answer = core.httpclient():get{ url = portcullis, headers = headers, timeout = timeout_ms }
  if answer == nil then return end
  txn:set_var("txn.portcullis", tostring(answer.status))
  local challenge = answer.headers and answer.headers["www-authenticate"]
  txn:set_var("txn.portcullis_challenge", challenge and challenge[0] or "Bearer")
end)
