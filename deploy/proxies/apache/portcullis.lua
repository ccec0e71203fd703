local host, port = "127.0.0.1", 9192
local timeout_s = 1

local socket = require "socket"

-- Headers that Portcullis could take for the proxy's word, and those about the connection between client and Apache.
local drop = {
  ["x-client-cert"] = true, ["x-ssl-client-cert"] = true, ["ssl-client-cert"] = true, ["ssl-client-verify"] = true,
  ["x-forwarded-tls-client-cert"] = true, ["client-cert"] = true, ["x-forwarded-client-cert"] = true,
  ["x-forwarded-for"] = true, ["x-forwarded-proto"] = true, ["x-forwarded-host"] = true, ["x-forwarded-port"] = true,
  ["forwarded"] = true, ["x-real-ip"] = true,
  ["x-original-method"] = true, ["x-original-uri"] = true, ["x-original-url"] = true,
  ["x-forwarded-method"] = true, ["x-forwarded-uri"] = true,
  ["connection"] = true, ["content-length"] = true, ["expect"] = true, ["keep-alive"] = true,
  ["proxy-connection"] = true, ["te"] = true, ["trailer"] = true, ["transfer-encoding"] = true, ["upgrade"] = true,
}

-- The status of Portcullis's answer and its challenge; nil when there is none.
local function ask(lines)
  local deadline = socket.gettime() + timeout_s
  local connection = socket.tcp()
  connection:settimeout(timeout_s)
  local status, challenge
  if connection:connect(host, port) and connection:send(table.concat(lines, "\r\n") .. "\r\n\r\n") then
    local line = connection:receive("*l")
    status = line and line:match("^HTTP/1%.1 (%d%d%d) ")
    while status and line and line ~= "" and socket.gettime() < deadline do
      line = connection:receive("*l")
      challenge = line and line:lower():match("^www%-authenticate:") and line:match(":%s*(.*)$") or challenge
    end
  end
  connection:close()
  return status, challenge
end

function check(r)
  local lines = {
    "GET / HTTP/1.1",
    "Connection: close",
    "X-Original-Method: " .. r.method,
    -- As the client sent it.
    "X-Original-URI: " .. r.unparsed_uri,
    "X-Forwarded-For: " .. r.useragent_ip,
    "X-Forwarded-Proto: " .. (r.is_https and "https" or "http"),
  }
  for name, value in pairs(r:headers_in_table()) do
    local lower = name:lower()
    if not drop[lower] and lower:sub(1, 13) ~= "x-portcullis-" then
      if value:find("[\r\n]") then return 400 end
      lines[#lines + 1] = name .. ": " .. value
    end
  end
  if r.is_https and r:ssl_var_lookup("SSL_CLIENT_VERIFY") == "SUCCESS" then
    local pem = r:ssl_var_lookup("SSL_CLIENT_CERT")
    lines[#lines + 1] = "X-Client-Cert: " .. pem:gsub("%s*\n%s*", " ")
  end
  local status, challenge = ask(lines)
  if status == "200" then return apache2.DECLINED end
  if status == "401" then
    r.err_headers_out["WWW-Authenticate"] = challenge or "Bearer"
    return 401
  end
  -- Portcullis down or slow denies, too.
  return 403
end
