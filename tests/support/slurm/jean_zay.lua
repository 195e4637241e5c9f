-- What Jean Zay's front door refuses, as its documentation tells it (not checked live), for the lab's own tests.
-- Binds jobs that go to one of that site's partitions, or that name an account, a constraint or a QoS.

local minutes = {
  ["qos_gpu-t3"] = 20 * 60, ["qos_gpu-t4"] = 100 * 60, ["qos_gpu-dev"] = 2 * 60,
  ["qos_gpu_a100-t3"] = 20 * 60, ["qos_gpu_a100-dev"] = 2 * 60,
  ["qos_gpu_h100-t3"] = 20 * 60, ["qos_gpu_h100-t4"] = 100 * 60, ["qos_gpu_h100-dev"] = 2 * 60,
  ["qos_cpu-t3"] = 20 * 60,
}
local machines = { v100 = true, a100 = true, h100 = true, cpu = true }
local machine_of = { gpu_p2 = "v100", gpu_p5 = "a100", gpu_p6 = "h100", cpu_p1 = "cpu" }

local function refuse(...)
  slurm.log_user(...)
  return slurm.ERROR
end

function slurm_job_submit(job, partitions, uid)
  local machine = machine_of[job.partition or ""]
  if not (machine or job.account or job.features or job.qos) then return slurm.SUCCESS end

  local paid = string.match(job.account or "", "^%w+@(%w+)$")
  if not machines[paid or ""] then
    return refuse("account '%s' is none: expected PROJECT@v100, @a100, @h100 or @cpu", job.account or "")
  end
  if machine and machine ~= paid then
    return refuse("account %s has no hours on partition %s", job.account, job.partition)
  end
  local wanted = string.match(job.features or "", "^(%w+)")
  if wanted and wanted ~= paid then
    return refuse("account %s has no hours on constraint %s", job.account, job.features)
  end
  if job.qos then
    local limit = minutes[job.qos]
    if not limit then return refuse("QoS %s is none", job.qos) end
    if job.time_limit ~= slurm.NO_VAL and job.time_limit > limit then
      return refuse("QoS %s allows %d minutes, not %d", job.qos, limit, job.time_limit)
    end
  end
  return slurm.SUCCESS
end

function slurm_job_modify(job, change, partitions, uid)
  return slurm.SUCCESS
end

return slurm.SUCCESS
