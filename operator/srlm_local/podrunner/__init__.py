"""The node of the one-machine cluster: runs each container's command as a tree of plain processes.

scheduler     which pending pods start now: CPU slots, first come first served
volumes       volumes become folders of the pod
environment   a container's argv, environment and working directory, mount paths made real
supervisor    a small process per container that holds its process tree together
containers    starts, stops and reads the result of one container
status        what a kubelet writes into the pod's status
logs          what `kubectl logs` shows
runner        watches pods and does all of the above
"""
