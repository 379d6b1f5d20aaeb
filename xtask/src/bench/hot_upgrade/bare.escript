#!/usr/bin/env escript
%%! -hidden
%% What one does by hand to upgrade a release that runs, from a hidden node beside it, once the files are laid: the peer of the
%% benchmark. It connects first and waits for a line; each step is told with what it took, in microseconds.
%%
%% bare.escript NODE COOKIE ROOT NAME FROM TO
main([Short, Cookie, Root, Name, From, To]) ->
    {ok, _} = net_kernel:start([list_to_atom("bare" ++ os:getpid()), shortnames]),
    erlang:set_cookie(node(), list_to_atom(Cookie)),
    {ok, Host} = inet:gethostname(),
    Node = list_to_atom(Short ++ "@" ++ Host),
    true = net_kernel:connect_node(Node),
    Rel = fun(Version) -> filename:join([Root, "releases", Version, Name]) end,
    Out = filename:join([Root, "releases", To]),
    Lib = filename:join(Root, "lib"),
    io:format("ready~n"),
    _ = io:get_line(""),
    {ok, To} = step(Node, unpack, release_handler, set_unpacked, [Rel(To) ++ ".rel", [{list_to_atom(Name), To, Lib}]]),
    Options = [silent, {path, [filename:join(Lib, "*/ebin")]}, {outdir, Out}],
    {ok, _, _, _} = step(Node, relup, systools, make_relup, [Rel(To), [Rel(From)], [], Options]),
    {ok, From, _} = step(Node, check, release_handler, check_install_release, [To]),
    {ok, From, _} = step(Node, install, release_handler, install_release, [To, [{update_paths, true}]]),
    ok = step(Node, permanent, release_handler, make_permanent, [To]),
    io:format("done~n").

step(Node, Step, Module, Function, Arguments) ->
    Began = erlang:monotonic_time(microsecond),
    Answer = rpc:call(Node, Module, Function, Arguments, 120000),
    io:format("~s ~b~n", [Step, erlang:monotonic_time(microsecond) - Began]),
    Answer.
