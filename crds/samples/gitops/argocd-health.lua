-- Health of a SelfRewardingRun for Argo CD. `obj` is the run; the answer is a table with status and message.
--
--   Progressing  the operator works on it, waits for something, or has not seen the newest spec yet
--   Suspended    somebody has to go on: spec.suspend, or a gate that holds the run
--   Degraded     stalled: it does not go on before something is mended; the message says what
--   Healthy      all iterations are done
--
-- A run takes days, and a sync wave waits for Healthy. The annotation `selfrewarding.dev/healthy-when` lets the next
-- wave start earlier: `Running` as soon as stages run, the name of a model (`M2`) as soon as there is that model.

local function condition(kind)
  if obj.status ~= nil and obj.status.conditions ~= nil then
    for _, found in ipairs(obj.status.conditions) do
      if found.type == kind and found.status == "True" then
        return found
      end
    end
  end
  return nil
end

local function answer(status, message)
  return {status = status, message = message or ""}
end

if obj.metadata.deletionTimestamp ~= nil then
  return answer("Progressing", "Being deleted")
end
if obj.status == nil or obj.status.conditions == nil then
  return answer("Progressing", "Waiting for the operator")
end
if obj.status.observedGeneration ~= obj.metadata.generation then
  return answer("Progressing", "The operator has not seen the newest spec yet")
end

local stalled = condition("Stalled")
if stalled ~= nil then
  if stalled.reason == "Held" then
    return answer("Suspended", stalled.message)
  end
  return answer("Degraded", (stalled.reason or "Stalled") .. ": " .. (stalled.message or ""))
end
local suspended = condition("Suspended")
if suspended ~= nil then
  return answer("Suspended", suspended.message)
end
local ready = condition("Ready")
if ready ~= nil then
  return answer("Healthy", ready.message)
end

local message = ""
local reconciling = condition("Reconciling")
if reconciling ~= nil then
  message = reconciling.message or ""
end
local progress = obj.status.progress
if progress ~= nil and progress.message ~= nil and progress.message ~= "" then
  message = progress.message
end
local when = (obj.metadata.annotations or {})["selfrewarding.dev/healthy-when"]
if when == "Running" and obj.status.phase == "Running" then
  return answer("Healthy", message)
end
for _, model in ipairs(obj.status.models or {}) do
  if model.name == when then
    return answer("Healthy", message)
  end
end
return answer("Progressing", message)
